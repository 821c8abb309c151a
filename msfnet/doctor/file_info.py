"""Decodes every frame of one video and describes the file: codec, size, frame rate, duration, brightness and motion.

It looks at no labels and no other files. A file that cannot be used is described by an error; nothing is raised.
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
from msfnet.data.video.container import decoded_frames, describe_damage, open_video
from msfnet.data.video.frame_folders import frame_files
from msfnet.doctor.near_duplicates import GRAY_PX, Comparison, GrayFrames, compare, signature
from msfnet.doctor.process_pool import Heartbeat
from msfnet.types import Frames, VideoError

MAX_GRAY_FRAMES = 4096  # of a longer video, only every second, fourth, ... frame is kept
COMPARED_SECONDS = 20.0  # compared of two videos that may have the same content
CELLS = 16  # brightness and motion are measured in 16 x 16 cells of a frame
BLACK_LUMA, STATIC_LUMA = 24, 1.5  # of 255; in real clips, cells reach 90 and more and change by 2.6 and more
IMAGES, IMAGES_FPS = "images", 25  # codec and frame rate of a folder of images, which has no times


@dataclass(frozen=True)
class VideoInfo:
    """The description of one file.

    Attributes:
        path: The file, or the folder of images.
        size_bytes: Size of the file, or of all images.
        digest: Digest of the content, the same under any name.
        codec: Name of the codec; `images` for a folder of images.
        pixel_format: Pixel format of the decoded frames, as FFmpeg names it.
        width_px, height_px: Size of the frames as stored, before they are rotated.
        fps: Mean frame rate in frames per second.
        constant_fps: Whether all intervals between frames are the same, up to rounding.
        header_frames: Number of frames by the header; 0 if it has none.
        frames: Number of frames that were decoded.
        rotation_degrees: Rotation that the file asks players for.
        duration_seconds: Duration of the decoded frames.
        mean_luma: Mean brightness, from 0 to 255.
        brightest_luma: Brightness of the brightest of 16 x 16 cells in any frame.
        motion_luma: Largest standard deviation over time of the brightness of one such cell.
        signature: Signature in base64, see `near_duplicates.signature`; empty for black or static videos.
        cpu_seconds: CPU time that decoding took.
        error: Why the file cannot be decoded, or None.
        warning: What is wrong with a damaged file that was decoded in part, or None.
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
    header_frames: int = 0
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
        """Return the number of frames when the video is read at a frame rate; 0 reads every frame of the file.

        A folder of images has the same number at any frame rate.
        """
        if not fps or self.codec == IMAGES or not self.duration_seconds:
            return self.frames
        return max(1, round(self.duration_seconds * fps))

    @property
    def black(self) -> bool:
        """Whether every frame is black."""
        return not self.error and self.brightest_luma < BLACK_LUMA

    @property
    def static(self) -> bool:
        """Whether every frame shows the same picture."""
        return not self.error and not self.black and self.frames > 1 and self.motion_luma < STATIC_LUMA


def inspect_video(path: Path, heartbeat: Heartbeat) -> VideoInfo:
    """Decode all frames of a video.

    Args:
        path: A file or a folder of images.
        heartbeat: Called for every frame.

    Returns:
        The description; with an `error` if no frame can be decoded.
    """
    started = time.process_time()
    info = VideoInfo(str(path), 0)
    try:
        info = replace(info, size_bytes=content.stamp(path)[0], digest=content.digest(path, heartbeat))
        info = _decode(path, info, heartbeat)
    except (VideoError, OSError) as error:
        reason = str(error) if isinstance(error, VideoError) else f"cannot be read: {error.strerror or error}"
        info = replace(info, error=reason)
    return replace(info, cpu_seconds=time.process_time() - started)


def compare_videos(paths: tuple[Path, Path], heartbeat: Heartbeat) -> Comparison | None:
    """Compare the first 20 seconds of two videos.

    Args:
        paths: Two files or folders of images.
        heartbeat: Called for every frame.

    Returns:
        The comparison, or None if the videos are too short to tell.

    Raises:
        VideoError: A file can no longer be read.
    """
    gray = []
    for path in paths:
        statistics = _Statistics(timed=path.is_file())
        with _frames_of(path) as (_, frames, _damage):
            for frame in frames:
                heartbeat()
                statistics.add(frame)
                if statistics.times[-1] - statistics.times[0] > COMPARED_SECONDS:
                    break
        gray.append(statistics.gray_frames())
    return compare(gray[0], gray[1])


def decoded_signature(info: VideoInfo) -> bytes:
    """Return the signature of a video as bytes."""
    return base64.b64decode(info.signature)


@contextmanager
def _frames_of(path: Path) -> Iterator[tuple[VideoStream | None, Iterator[VideoFrame], list[str]]]:
    """Open a video: its stream (None for a folder of images), its frames, and the list that damage is added to."""
    damage: list[str] = []
    if path.is_dir():
        yield None, _images(path, damage), damage
        return
    with open_video(path) as (container, stream):
        yield stream, decoded_frames(container, stream, damage), damage


def _images(folder: Path, damage: list[str]) -> Iterator[VideoFrame]:
    for file in frame_files(folder):
        own: list[str] = []
        try:
            with open_video(file) as (container, stream):
                yield from decoded_frames(container, stream, own)
        except VideoError as error:
            own.append(str(error))
        damage += [f"{file.name}: {reason}" for reason in own]


def _decode(path: Path, info: VideoInfo, heartbeat: Heartbeat) -> VideoInfo:
    """Complete the description with what decoding finds. Raises VideoError if no frame can be decoded."""
    statistics = _Statistics(timed=path.is_file())
    with _frames_of(path) as (stream, frames, damage):
        for frame in frames:
            heartbeat()
            statistics.add(frame)
        if not statistics.times:
            raise VideoError("no frame can be decoded" + (f": {damage[0]}" if damage else ""))
        header_frames = stream.frames if stream else 0
        header_fps = float(stream.average_rate or 0) if stream else 0.0
        tick_seconds = float(stream.time_base or 0) if stream else 0.0
        codec = stream.codec_context.name if stream else IMAGES
        claimed_seconds = _claimed_seconds(stream) if stream else 0.0
    fps, constant = _frame_rate(np.array(statistics.times), header_fps, tick_seconds)
    duration = len(statistics.times) / fps if fps else 0.0
    warning = describe_damage(len(statistics.times), header_frames, damage)
    if not warning and claimed_seconds > 1.05 * duration + 0.25:
        warning = f"the file is damaged: its header states {claimed_seconds:.2f} seconds, {duration:.2f} could be read"
    return replace(
        _describe_frames(info, statistics),
        codec=codec,
        header_frames=header_frames,
        fps=round(fps, 3),
        constant_fps=constant,
        duration_seconds=round(duration, 3),
        warning=warning,
    )


def _claimed_seconds(stream: VideoStream) -> float:
    """Return the duration by the header of a Matroska file, 0 if it has none; such a file does not count its frames."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _describe_frames(info: VideoInfo, statistics: _Statistics) -> VideoInfo:
    """Complete the description with size, brightness, motion and signature of the frames."""
    gray = statistics.gray_frames()
    cells = gray.frames.reshape(-1, CELLS, GRAY_PX // CELLS, CELLS, GRAY_PX // CELLS).mean((2, 4), dtype=np.float32)
    info = replace(
        info,
        frames=len(statistics.times),
        width_px=statistics.width_px,
        height_px=statistics.height_px,
        pixel_format=statistics.pixel_format,
        rotation_degrees=statistics.rotation_degrees,
        mean_luma=round(float(cells.mean()), 1),
        brightest_luma=round(float(cells.max()), 1),
        motion_luma=round(float(cells.std(0).max()), 2),
    )
    if info.black or info.static:
        return info
    return replace(info, signature=base64.b64encode(signature(gray)).decode())


def _frame_rate(times: npt.NDArray[np.float64], header_fps: float, tick_seconds: float) -> tuple[float, bool]:
    """Return the mean frame rate, and whether all intervals between frames are equal up to rounding to ticks."""
    intervals = np.diff(np.sort(times))
    if not len(intervals) or not intervals.sum():
        return header_fps, True
    fps = 1 / float(intervals.mean())
    tolerance_seconds = max(2.01 * tick_seconds, 0.05 * float(np.median(intervals)))
    return fps, bool(intervals.max() - intervals.min() <= tolerance_seconds)


class _Statistics:
    """What is kept of frames as they are decoded: the time of each, and gray versions of at most 4,096 of them."""

    def __init__(self, *, timed: bool) -> None:
        self.timed = timed
        self.reformatter = VideoReformatter()
        self.times: list[float] = []  # seconds
        self.kept: list[tuple[float, Frames]] = []
        self.interval = 1  # number of frames from one that is kept to the next
        self.width_px = self.height_px = self.rotation_degrees = 0
        self.pixel_format = ""

    def add(self, frame: VideoFrame) -> None:
        if not self.times:
            self.width_px, self.height_px = frame.width, frame.height
            self.rotation_degrees, self.pixel_format = frame.rotation % 360, frame.format.name
        index = len(self.times)
        time_seconds = frame.time if self.timed else None
        self.times.append(index / IMAGES_FPS if time_seconds is None else time_seconds)
        if index % self.interval == 0:
            self.kept.append((self.times[-1], self._to_gray(frame)))
        if len(self.kept) > MAX_GRAY_FRAMES:
            self.kept = self.kept[::2]
            self.interval *= 2

    def _to_gray(self, frame: VideoFrame) -> Frames:
        """Return the upright frame in gray: 32 32."""
        small = self.reformatter.reformat(frame, GRAY_PX, GRAY_PX, "gray", interpolation="AREA")
        gray: Frames = small.to_ndarray()  # type: ignore[assignment]
        return np.rot90(gray, round(frame.rotation / 90) % 4)

    def gray_frames(self) -> GrayFrames:
        ordered = sorted(self.kept, key=lambda pair: pair[0])
        return GrayFrames(np.stack([gray for _, gray in ordered]), np.array([seconds for seconds, _ in ordered]))
