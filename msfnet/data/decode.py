"""Video files to frames. The only file that knows the decoder (PyAV, which brings FFmpeg with it).

Only wanted frames are converted, and resized in the same pass. Nothing here hangs on to a file or a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from msfnet.arrays import Frames, Indices
from msfnet.types import Clip, VideoError

Plan = Callable[[int], Indices]  # frames in the video -> indices V T of the frames wanted


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A container and its video stream, decoded by one thread; what FFmpeg says of a bad file as VideoError."""
    try:
        if path.stat().st_size == 0:
            raise VideoError("the file is empty")
        with av.open(str(path), metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                raise VideoError("the file has no video stream")
            streams[0].thread_count = 1
            yield container, streams[0]
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"cannot be read as a video: {error.strerror or error}") from error


def count_packets(path: Path) -> tuple[int, int]:
    """How many frames the video stream seems to hold, and how many its header promises (0: it does not say).

    The first number is that of its packets, counted without decoding. Raises VideoError for a file that is no video.
    """
    with _open(path) as (container, stream):
        found = 0
        try:
            for packet in container.demux(stream):
                found += bool(packet.size)
        except av.FFmpegError:
            pass  # truncated: what was counted is what there is
        return found, stream.frames


def _decoded(container: InputContainer, stream: VideoStream, problems: list[str]) -> Iterator[VideoFrame]:
    """All frames that can be decoded, in order; damage is noted in `problems` and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            problems.append(f"the file breaks off ({error.strerror})")
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            problems.append(f"a packet cannot be decoded ({error.strerror})")


def _convert(frame: VideoFrame, resize_px: tuple[int, int]) -> Frames:
    """RGB at the wanted width and height, turned upright as the file's display matrix says: H W 3."""
    width, height = resize_px
    turns = round(frame.rotation / 90) % 4
    if turns % 2:
        width, height = height, width
    rgb: Frames = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()  # type: ignore[assignment]
    return np.rot90(rgb, turns) if turns else rgb


def _read(path: Path, wanted: set[int] | None, resize_px: tuple[int, int]) -> tuple[dict[int, Frames], int, list[str]]:
    """The wanted frames (None: all), how many were decoded to find them, and what was damaged on the way."""
    problems: list[str] = []
    frames: dict[int, Frames] = {}
    decoded = 0
    last = max(wanted) if wanted else None
    with _open(path) as (container, stream):
        for index, frame in enumerate(_decoded(container, stream, problems)):
            decoded = index + 1
            if wanted is None or index in wanted:
                frames[index] = _convert(frame, resize_px)
            if index == last:
                break
    if not decoded:
        raise VideoError("no frame can be decoded" + (f": {problems[0]}" if problems else ""))
    return frames, decoded, problems


def read_clips(path: Path, plan: Plan, resize_px: tuple[int, int]) -> Clip:
    """The frames that `plan` wants of a video, resized to (width, height) px.

    `plan` is asked with the number of packets first; where fewer frames can be decoded it is asked again with the
    true number, so that the frames are those of the video that is there.

    Raises VideoError when no frame can be decoded.
    """
    found, promised = count_packets(path)
    video_frames = max(1, found)
    indices = plan(video_frames)
    wanted = set(indices.ravel().tolist())
    frames, decoded, problems = _read(path, wanted, resize_px)
    if len(frames) < len(wanted):
        video_frames = decoded
        indices = plan(video_frames)
        frames, _, problems = _read(path, set(indices.ravel().tolist()), resize_px)
    return pick(
        np.stack([frames[i] for i in sorted(frames)]),
        np.searchsorted(sorted(frames), indices),
        video_frames,
        _damage(video_frames, promised, problems),
    )


def read_video(path: Path, resize_px: tuple[int, int]) -> Clip:
    """Every frame of a video as one view of one long clip: 1 T H W 3. Raises VideoError as `read_clips` does."""
    _, promised = count_packets(path)
    frames, decoded, problems = _read(path, None, resize_px)
    return Clip(np.stack(list(frames.values()))[None], decoded, warning=_damage(decoded, promised, problems))


def pick(frames: Frames, indices: Indices, video_frames: int, warning: str | None = None) -> Clip:
    """The clip made of `frames` T H W 3 at `indices` V T."""
    return Clip(frames[indices], video_frames, repeated=video_frames < indices.shape[-1], warning=warning)


def _damage(video_frames: int, promised: int, problems: list[str]) -> str | None:
    """What is wrong with a file of which some frames could be read."""
    if promised > video_frames:
        return f"the file is damaged: its header promises {promised} frames, {video_frames} could be read"
    return f"the file is damaged: {problems[0]}" if problems else None
