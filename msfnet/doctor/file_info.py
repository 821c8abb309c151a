"""The facts of one video file, found by decoding every frame of it: what it is, and whether it is what it claims.

Knows no label and no other file. A file that cannot be used gets facts with an error; nothing is raised.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from msfnet.data.cache import content
from msfnet.data.video.decode import decoded_frames, describe_damage, open_video
from msfnet.data.video.frame_folders import frame_files
from msfnet.doctor.near_duplicates import THUMB_PX, NearDuplicate, Thumbs, compare, signature
from msfnet.doctor.process_pool import Beat
from msfnet.types import Frames, VideoError

MOST_THUMBS = 4096  # of a longer video, every second, fourth, ... frame is looked at
COMPARED_SECONDS = 20.0  # of two videos that may be the same
DARK_LUMA, STILL_LUMA = 24, 1.5  # of 255; real clips have cells of 90 and more, and change by 2.6 and more
IMAGES, IMAGES_FPS = "images", 25  # the codec and rate of a folder's, which have no times of their own


@dataclass(frozen=True)
class VideoFacts:
    """What is known of one file. Sizes are as stored, before `rotation_degrees`; luma goes from 0 to 255.

    `claimed_frames` is the header's word (0: it has none), `frames` how many were decoded. `brightest_luma` is that
    of the brightest sixteenth by sixteenth of any frame, `motion_luma` the largest deviation of one such cell over
    time. `signature` (base64) is compared with other videos'; a video without motion has none. Damage that left some
    frames is a `warning`.
    """

    path: str
    size_bytes: int
    digest: str = ""
    codec: str = ""
    pixel_format: str = ""
    width_px: int = 0
    height_px: int = 0
    fps: float = 0.0
    constant_fps: bool = True
    claimed_frames: int = 0
    frames: int = 0
    rotation_degrees: int = 0
    duration_seconds: float = 0.0
    mean_luma: float = 0.0
    brightest_luma: float = 0.0
    motion_luma: float = 0.0
    signature: str = ""
    cpu_seconds: float = 0.0
    error: str | None = None
    warning: str | None = None

    def frames_at(self, fps: float) -> int:
        """How many frames training counts at that rate. A folder of images has its own at any, as all have at 0."""
        if not fps or self.codec == IMAGES or not self.duration_seconds:
            return self.frames
        return max(1, round(self.duration_seconds * fps))

    @property
    def black(self) -> bool:
        return not self.error and self.brightest_luma < DARK_LUMA

    @property
    def still(self) -> bool:
        return not self.error and not self.black and self.frames > 1 and self.motion_luma < STILL_LUMA


def inspect_video(path: Path, beat: Beat) -> VideoFacts:
    """Decode all of a file, or of a folder of images, and say what it is. `beat` is called at every frame."""
    started = time.process_time()
    facts = VideoFacts(str(path), 0)
    try:
        facts = replace(facts, size_bytes=content.stamp(path)[0], digest=content.digest(path, beat))
        facts = _look(path, facts, beat)
    except (VideoError, OSError) as error:
        reason = str(error) if isinstance(error, VideoError) else f"cannot be read: {error.strerror or error}"
        facts = replace(facts, error=reason)
    return replace(facts, cpu_seconds=time.process_time() - started)


def compare_videos(paths: tuple[Path, Path], beat: Beat) -> NearDuplicate | None:
    """How alike the first seconds of two videos are; None when that cannot be told."""
    watches = []
    for path in paths:
        watch = _Watch(timed=path.is_file())
        with _source(path) as (_, frames, _problems):
            for frame in frames:
                beat()
                watch.add(frame)
                if watch.times[-1] - watch.times[0] > COMPARED_SECONDS:
                    break
        watches.append(watch)
    return compare(watches[0].thumbs(), watches[1].thumbs())


def decoded_signature(facts: VideoFacts) -> bytes:
    return base64.b64decode(facts.signature)


@contextmanager
def _source(path: Path) -> Iterator[tuple[VideoStream | None, Iterator[VideoFrame], list[str]]]:
    """The frames of a file with its stream, or of a folder of images (no stream); damage goes to the list."""
    problems: list[str] = []
    if path.is_dir():
        yield None, _images(path, problems), problems
        return
    with open_video(path) as (container, stream):
        yield stream, decoded_frames(container, stream, problems), problems


def _images(folder: Path, problems: list[str]) -> Iterator[VideoFrame]:
    for file in frame_files(folder):
        own: list[str] = []
        try:
            with open_video(file) as (container, stream):
                yield from decoded_frames(container, stream, own)
        except VideoError as error:
            own.append(str(error))
        problems += [f"{file.name}: {problem}" for problem in own]


def _look(path: Path, facts: VideoFacts, beat: Beat) -> VideoFacts:
    watch = _Watch(timed=path.is_file())
    with _source(path) as (stream, frames, problems):
        for frame in frames:
            beat()
            watch.add(frame)
        if not watch.times:
            raise VideoError("no frame can be decoded" + (f": {problems[0]}" if problems else ""))
        thumbs = watch.thumbs()
        facts = _picture_facts(facts, watch, thumbs)
        claimed = stream.frames if stream else 0
        rate = float(stream.average_rate or 0) if stream else 0.0
        tick = float(stream.time_base or 0) if stream else 0.0
        codec = stream.codec_context.name if stream else IMAGES
        claimed_seconds = _claimed_seconds(stream) if stream else 0.0
    fps, constant = _frame_rate(np.array(watch.times), rate, tick)
    duration = len(watch.times) / fps if fps else 0.0
    warning = describe_damage(len(watch.times), claimed, problems)
    if not warning and claimed_seconds > 1.05 * duration + 0.25:
        warning = (
            f"the file is damaged: its header promises {claimed_seconds:.2f} seconds, {duration:.2f} could be read"
        )
    return replace(
        facts,
        codec=codec,
        claimed_frames=claimed,
        fps=round(fps, 3),
        constant_fps=constant,
        duration_seconds=round(duration, 3),
        warning=warning,
    )


def _claimed_seconds(stream: VideoStream) -> float:
    """How long a Matroska file says that its video is (0: it does not); it counts no frames, and just ends if cut."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _picture_facts(facts: VideoFacts, watch: _Watch, thumbs: Thumbs) -> VideoFacts:
    """What the frames themselves say."""
    cells = thumbs.pictures.reshape(-1, 16, THUMB_PX // 16, 16, THUMB_PX // 16).mean((2, 4), dtype=np.float32)
    facts = replace(
        facts,
        frames=len(watch.times),
        width_px=watch.width_px,
        height_px=watch.height_px,
        pixel_format=watch.pixel_format,
        rotation_degrees=watch.rotation_degrees,
        mean_luma=round(float(cells.mean()), 1),
        brightest_luma=round(float(cells.max()), 1),
        motion_luma=round(float(cells.std(0).max()), 2),
    )
    if facts.black or facts.still:
        return facts
    return replace(facts, signature=base64.b64encode(signature(thumbs)).decode())


def _frame_rate(times: npt.NDArray[np.float64], header_fps: float, tick_seconds: float) -> tuple[float, bool]:
    """Frames a second as they are shown, and whether all intervals are the same but for rounding to ticks."""
    steps = np.diff(np.sort(times))
    if not len(steps) or not steps.sum():
        return header_fps, True
    fps = 1 / float(steps.mean())
    constant = bool(steps.max() - steps.min() <= max(2.01 * tick_seconds, 0.05 * float(np.median(steps))))
    return fps, constant


class _Watch:
    """What is kept of the frames that go by: the time of each, and a small gray picture of every so many."""

    def __init__(self, *, timed: bool) -> None:
        self.timed = timed
        self.reformatter = VideoReformatter()
        self.times: list[float] = []  # seconds
        self.kept: list[tuple[float, Frames]] = []
        self.every = 1
        self.width_px = self.height_px = self.rotation_degrees = 0
        self.pixel_format = ""

    def add(self, frame: VideoFrame) -> None:
        if not self.times:
            self.width_px, self.height_px = frame.width, frame.height
            self.rotation_degrees, self.pixel_format = frame.rotation % 360, frame.format.name
        index = len(self.times)
        time_seconds = frame.time if self.timed else None
        self.times.append(index / IMAGES_FPS if time_seconds is None else time_seconds)
        if index % self.every == 0:
            self.kept.append((self.times[-1], self._thumb(frame)))
        if len(self.kept) > MOST_THUMBS:
            self.kept = self.kept[::2]
            self.every *= 2

    def _thumb(self, frame: VideoFrame) -> Frames:
        """The upright frame in gray: 32 32."""
        small = self.reformatter.reformat(frame, THUMB_PX, THUMB_PX, "gray", interpolation="AREA")
        gray: Frames = small.to_ndarray()  # type: ignore[assignment]
        return np.rot90(gray, round(frame.rotation / 90) % 4)

    def thumbs(self) -> Thumbs:
        ordered = sorted(self.kept, key=lambda pair: pair[0])
        return Thumbs(np.stack([thumb for _, thumb in ordered]), np.array([at for at, _ in ordered]))
