"""Video files to frames, by PyAV (which brings FFmpeg with it).

A file's packets tell, without being decoded, how many frames there are, when each is shown, and what the wanted ones
need. Only that is decoded, and only wanted frames are converted, resized in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import SEEK_END, BytesIO
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from msfnet.data.video.frame_folders import frame_files
from msfnet.types import Clip, Floats, FrameFormat, Frames, Indices, VideoError

VideoSource = Path | bytes | BinaryIO  # a file or a folder of images, a file's content, or an opened file
Plan = Callable[[int], Indices]  # frames in the video, at the rate that it is read at -> indices V T of those wanted

# Decoders that pass over frames that no other refers to, when they are told so packet by packet.
SKIPPING = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
KEPT_BYTES = 256 * 2**20  # the packets of a larger file are read from it again when they are decoded
MOST_REPEATS = 1000  # steps of time for each frame, on average: more come of times that are wrong, or of no video


def read_clips(path: VideoSource, plan: Plan, frame_format: FrameFormat, threads: int = 1) -> Clip:
    """The frames that `plan` wants of a video, in a format. A folder of images is a video too, of no rate.

    `plan` counts in even steps of time: see `timeline`. It is asked with what the packets tell first; where fewer
    frames can be decoded it is asked again with the true number, so that the frames are those that are there.

    Raises VideoError when no frame can be decoded.
    """
    if isinstance(path, Path) and path.is_dir():
        return _read_folder(path, plan, frame_format.resize)
    with open_video(path, threads) as (container, stream):
        survey = _survey(container, stream)
        if survey.times and not survey.damage():
            shown = survey.timeline(frame_format.fps)
            indices = shown[plan(len(shown))]
            numbers, places = np.unique(indices, return_inverse=True)
            wanted = {survey.times[number]: place for place, number in enumerate(numbers.tolist())}
            frames, found = np.empty((len(numbers), *frame_format.resize[::-1], 3), np.uint8), 0
            convert = Converter(frame_format.resize)
            with survey.replay(path, threads) as (source, packets):
                for frame in _decode_chosen(source, packets, survey, wanted):
                    if frame.pts in wanted:
                        convert(frame, frames[wanted[frame.pts]])
                        found += 1
            if found == len(wanted) and not survey.problems:
                clip = pick(frames, places.reshape(indices.shape), len(shown))
                return replace(clip, times=survey.clock.seconds(survey.times, indices))
    scan = _scan(path, threads)
    shown = scan.timeline(frame_format.fps)
    indices = shown[plan(len(shown))]
    converted = _scan(path, threads, Converter(frame_format.resize), np.unique(indices).tolist()).frames
    clip = _clip(converted, indices, len(shown), scan.damage())
    return replace(clip, times=scan.clock.seconds(scan.times(), indices))


def frame_size(path: Path) -> tuple[int, int]:
    """Return the width and height of a video's frames in pixels, turned upright.

    Raises:
        VideoError: No frame can be decoded.
    """
    if path.is_dir():
        files = frame_files(path)
        if not files:
            raise VideoError("the folder holds no images")
        path = files[0]
    with open_video(path) as (container, stream):
        frame = next(decoded_frames(container, stream, []), None)
        if frame is None:
            raise VideoError("no frame can be decoded")
        turned = round(frame.rotation / 90) % 2
        return (frame.height, frame.width) if turned else (frame.width, frame.height)


def read_video(path: Path, frame_format: FrameFormat, threads: int = 1) -> Clip:
    """Every frame of a video as one view of one long clip, in even steps of time as in `read_clips`: 1 T H W 3.

    Raises VideoError when no frame can be decoded.
    """
    if path.is_dir() or frame_format.fps:  # of another rate, few of the file's own frames may be wanted
        return read_clips(path, lambda video_frames: np.arange(video_frames)[None], frame_format, threads)
    scan = _scan(path, threads, Converter(frame_format.resize))
    return _clip(scan.frames, scan.timeline(frame_format.fps)[None], scan.video_frames, scan.damage())


def count_frames(path: Path, fps: float = 0.0) -> int:
    """How many frames a video seems to hold at that rate (see FrameFormat), counted without decoding.

    Raises VideoError for what is no video.
    """
    if path.is_dir():
        return len(frame_files(path))
    with open_video(path) as (container, stream):
        return len(_survey(container, stream).timeline(fps))


def choose_frames(path: Path, plan: Plan, fps: float) -> tuple[Indices, int, int] | None:
    """What a plan wants of a video: numbers of frames, how many steps it was asked of, and the number of their stream.

    Told by the packets alone; None where they do not tell, or the file is damaged. Raises VideoError for no video.
    """
    with open_video(path) as (container, stream):
        survey = _survey(container, stream)
        if not survey.times or survey.damage():
            return None
        shown = survey.timeline(fps)
        return shown[plan(len(shown))], len(shown), stream.index


def timeline(times: Sequence[int], fps: float = 0.0, tick_seconds: float = 0.0) -> Indices:
    """Which frame is on screen in the middle of each equal step of a video; its n frames begin at `times`, in ticks.

    Steps are n, or, with `fps`, so many a second and as many as come nearest to the video's length, one at least. For
    a constant frame rate n steps are frames 0, 1, 2, ..., also when the file rounds its times. At half of it every
    middle is where one frame gives way to the next; a tenth of a step, or of a frame, later it is the next, also then.
    Where ticks are of 0 seconds, which is not known, there are n steps.

    Raises VideoError for frames that lie so far apart that they are no video.
    """
    n = len(times)
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    starts = np.asarray(times, dtype=np.float64)
    mean_ticks = (starts[-1] - starts[0]) / (n - 1)
    if not fps * tick_seconds:
        return _on_screen(starts, starts[0] + (np.arange(n) + 0.5) * mean_ticks)
    step_ticks = 1 / (fps * tick_seconds)
    steps = max(1, round(n * mean_ticks / step_ticks))
    if steps > MOST_REPEATS * n:
        raise VideoError(
            f"its frames lie {mean_ticks * tick_seconds:.0f} seconds apart, too far to read {fps:g} of them a second"
        )
    late_ticks = min(mean_ticks, step_ticks) / 10
    return _on_screen(starts, starts[0] + (np.arange(steps) + 0.5) * step_ticks + late_ticks)


def _on_screen(starts: npt.NDArray[np.float64], moments: npt.NDArray[np.float64]) -> Indices:
    return np.searchsorted(starts, moments, side="right") - 1


@dataclass(frozen=True)
class _Clock:
    """Seconds of a stream's tick, and from one frame to the next by its header; 0: it does not say."""

    tick_seconds: float
    frame_seconds: float

    @classmethod
    def of(cls, stream: VideoStream) -> _Clock:
        rate = stream.average_rate
        return cls(float(stream.time_base or 0), float(1 / rate) if rate else 0.0)

    def timeline(self, times: Sequence[int], video_frames: int, fps: float) -> Indices:
        """That of the frames at `times`; of a file that tells none, as AVI does not always, at its header's rate."""
        if times:
            return timeline(times, fps, self.tick_seconds)
        return timeline(range(video_frames), fps, self.frame_seconds)

    def seconds(self, times: Sequence[int], indices: Indices) -> Floats | None:
        """Return when frames are shown, from the first one on; None for a file that tells neither times nor a rate."""
        if times and self.tick_seconds:
            ticks = np.asarray(times, dtype=np.int64)
            return (ticks[indices] - ticks[0]) * self.tick_seconds
        return indices * self.frame_seconds if self.frame_seconds else None


def pick(frames: Frames, indices: Indices, video_frames: int, warning: str | None = None) -> Clip:
    """The clip made of `frames` T H W 3 at `indices` V T."""
    all_in_order = np.array_equal(indices.ravel(), np.arange(len(frames)))  # the usual case, and no copy then
    chosen = frames.reshape(*indices.shape, *frames.shape[1:]) if all_in_order else frames[indices]
    return Clip(chosen, video_frames, padded=video_frames < indices.shape[-1], warning=warning)


def _clip(frames: dict[int, Frames], indices: Indices, video_frames: int, warning: str | None = None) -> Clip:
    chosen = np.stack([frames[i] for i in indices.ravel().tolist()])
    return Clip(
        chosen.reshape(*indices.shape, *chosen.shape[1:]), video_frames, video_frames < indices.shape[-1], warning
    )


def _read_folder(path: Path, plan: Plan, resize: tuple[int, int]) -> Clip:
    files = frame_files(path)
    if not files:
        raise VideoError("the folder holds no images")
    indices = plan(len(files))
    frames = {}
    for i in np.unique(indices).tolist():
        try:
            frames[i] = _scan(files[i], 1, Converter(resize), [0]).frames[0]
        except VideoError as error:
            raise VideoError(f"{files[i].name}: {error}") from error
    return _clip(frames, indices, len(files))


# Files and packets


def _openable(source: VideoSource) -> str | BinaryIO:
    """What PyAV opens; an opened file is read from its beginning. Raises VideoError for one without content."""
    if isinstance(source, Path):
        empty = source.stat().st_size == 0
    else:
        source = BytesIO(source) if isinstance(source, bytes) else source
        empty = source.seek(0, SEEK_END) == 0
        source.seek(0)
    if empty:
        raise VideoError("the file is empty")
    return str(source) if isinstance(source, Path) else source


@contextmanager
def open_video(path: VideoSource, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A container and its video stream, decoded by so many threads; what FFmpeg says of a bad file as VideoError."""
    try:
        with av.open(_openable(path), "r", metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                raise VideoError("the file has no video stream")
            best = container.streams.best("video")  # of several, the one that FFmpeg's own programs take
            stream = best if best in streams else streams[0]
            stream.thread_count = threads
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"cannot be read as a video: {error.strerror or error}") from error


def decoded_frames(container: InputContainer, stream: VideoStream, problems: list[str]) -> Iterator[VideoFrame]:
    """All frames that can be decoded, in order; damage is noted in `problems` and passed over."""
    for packet in chain(_demux(container, stream, problems), [None]):
        for frame in _decode(stream, packet, problems):
            frame.time_base = stream.time_base
            yield frame


def _demux(container: InputContainer, stream: VideoStream, problems: list[str]) -> Iterator[Packet[VideoStream]]:
    """The stream's packets up to the end of what can be read; a file that breaks off is noted in `problems`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            problems.append(f"the file breaks off ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def _decode(stream: VideoStream, packet: Packet[VideoStream] | None, problems: list[str]) -> list[VideoFrame]:
    """The frames that a packet brings to light (None: all that are still inside); damage is noted and passed over."""
    try:
        frames: list[VideoFrame] = stream.codec_context.decode(packet)
        return frames
    except av.FFmpegError as error:
        problems.append(f"a packet cannot be decoded ({error.strerror})")
        return []


def describe_damage(video_frames: int, promised: int, problems: Sequence[str]) -> str | None:
    """What is wrong with a file of which some frames could be read."""
    if promised > video_frames:
        return f"the file is damaged: its header promises {promised} frames, {video_frames} could be read"
    return f"the file is damaged: {problems[0]}" if problems else None


class Converter:
    """Decoded frames to RGB of one size (width, height), with a scaler that is set up once for all of them."""

    def __init__(self, resize: tuple[int, int]) -> None:
        self.resize = resize
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame, into: Frames) -> None:
        """Resized, and turned upright as the file's display matrix says, into an array H W 3."""
        turns = round(frame.rotation / 90) % 4
        width, height = reversed(self.resize) if turns % 2 else self.resize
        # FFmpeg scales to planes several times faster than to interleaved pixels.
        planar = self._scaler.reformat(frame, width, height, "gbrp", threads=1)
        stored = np.rot90(into, -turns) if turns else into
        for plane, channel in zip(planar.planes, (1, 2, 0), strict=True):
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
            stored[..., channel] = lines[:, :width]


# All frames, one after another


@dataclass
class _Scan:
    """What decoding a whole file brought to light."""

    promised: int  # frames by the header; 0: it does not say
    clock: _Clock
    starts: list[int | None] = field(default_factory=list)  # when each frame is shown
    frames: dict[int, Frames] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def video_frames(self) -> int:
        return len(self.starts)

    def times(self) -> list[int]:
        """Return when each frame is shown, in ticks; none unless the file tells it of every frame, in order."""
        times = [start for start in self.starts if start is not None]
        told = len(times) == len(self.starts) and all(a < b for a, b in pairwise(times))
        return times if told else []

    def timeline(self, fps: float) -> Indices:
        return self.clock.timeline(self.times(), len(self.starts), fps)

    def damage(self) -> str | None:
        return describe_damage(self.video_frames, self.promised, self.problems)


def _scan(
    path: VideoSource, threads: int, convert: Converter | None = None, wanted: Collection[int] | None = None
) -> _Scan:
    """Decode a whole file and convert the frames that are wanted (None: all); with no `convert`, only count."""
    with open_video(path, threads) as (container, stream):
        scan = _Scan(stream.frames, _Clock.of(stream))
        for number, frame in enumerate(decoded_frames(container, stream, scan.problems)):
            scan.starts.append(frame.pts)
            if convert and (wanted is None or number in wanted):
                scan.frames[number] = np.empty((*convert.resize[::-1], 3), np.uint8)
                convert(frame, scan.frames[number])
    if not scan.starts:
        raise VideoError("no frame can be decoded" + (f": {scan.problems[0]}" if scan.problems else ""))
    return scan


# Chosen frames


@dataclass
class _Survey:
    """What the packets of a video say without being decoded, in the order of the file."""

    promised: int  # frames by the header; 0: it does not say
    clock: _Clock
    starts: list[int] = field(default_factory=list)  # when each packet's frame is shown
    keys: list[bool] = field(default_factory=list)  # decoding can begin here
    shown: list[bool] = field(default_factory=list)
    packets: list[Packet[VideoStream]] | None = field(default_factory=list)  # None: too large to keep
    problems: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # of the frames shown, in order; none when the file does not tell

    def timeline(self, fps: float) -> Indices:
        return self.clock.timeline(self.times, sum(self.shown), fps)

    def damage(self) -> str | None:
        return describe_damage(len(self.starts), self.promised, self.problems)

    @contextmanager
    def replay(self, path: VideoSource, threads: int) -> Iterator[tuple[VideoStream, Iterable[Packet[VideoStream]]]]:
        """The packets once more, from memory or from the file, with the stream that decodes them."""
        if self.packets:
            yield self.packets[0].stream, self.packets
        else:
            with open_video(path, threads) as (container, stream):
                yield stream, _demux(container, stream, [])

    def runs(self, wanted: Collection[int]) -> list[tuple[int, int]]:
        """The packets, first and last of each run, that hold the frames shown at `wanted` and all that these need.

        A frame needs what lies between it and the last key packet before it that is not shown later than itself.
        """
        runs: list[tuple[int, int]] = []
        keys: list[int] = [0]
        for number, start in enumerate(self.starts):
            if self.keys[number]:
                keys.append(number)
            if start in wanted:
                begin = next(key for key in reversed(keys) if not key or self.starts[key] <= start)
                while runs and runs[-1][1] >= begin:
                    begin = min(begin, runs.pop()[0])
                runs.append((begin, number))
        return runs


def _survey(container: InputContainer, stream: VideoStream) -> _Survey:
    """Look through all packets. Times count for nothing where a packet lacks one or not every packet is a frame."""
    survey, kept_bytes, told = _Survey(stream.frames, _Clock.of(stream)), 0, True
    codec = stream.codec_context.name
    for packet in _demux(container, stream, survey.problems):
        hidden = packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & 0x10)  # the flag of a frame to show
        uncoded = codec == "mpeg4" and packet.size < 8  # what stands in for a frame that lies in another's packet
        told &= packet.pts is not None and not uncoded
        survey.starts.append(packet.pts or 0)
        survey.keys.append(packet.is_keyframe)
        survey.shown.append(not hidden)
        kept_bytes += packet.size
        if survey.packets is not None:
            survey.packets.append(packet)
            if kept_bytes > KEPT_BYTES:
                survey.packets = None
    times = {start for start, shown in zip(survey.starts, survey.shown, strict=True) if shown}
    if told and len(times) == sum(survey.shown):
        survey.times = sorted(times)
    return survey


def _decode_chosen(
    stream: VideoStream, packets: Iterable[Packet[VideoStream]], survey: _Survey, wanted: Collection[int]
) -> Iterator[VideoFrame]:
    """The frames shown at `wanted` and others that they need; fewer where decoding cannot begin in the middle."""
    context, numbered = stream.codec_context, enumerate(packets)
    can_skip = context.name in SKIPPING
    for first, last in survey.runs(wanted):
        begun = first == 0
        for number, packet in numbered:
            if number < first or (first and survey.starts[number] < survey.starts[first]):
                continue  # not needed, or refers to what lies before the run
            if can_skip:
                context.skip_frame = "DEFAULT" if survey.starts[number] in wanted else "NONREF"
            frames = _decode(stream, packet, survey.problems)
            if number == last:
                frames += _decode(stream, None, survey.problems)
            if frames and not begun:
                if frames[0].pts != survey.starts[first] or frames[0].pict_type != PictureType.I:
                    return
                begun = True
            yield from frames
            if number == last:
                break
        context.flush_buffers()
