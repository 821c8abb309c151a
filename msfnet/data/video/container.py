"""Video files with PyAV, which bundles FFmpeg: open a file, read its packets, decode and convert frames.

It does no sampling. What FFmpeg reports about a bad file becomes a VideoError or a line in a list of errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from msfnet.data.video.timestamps import StreamTiming
from msfnet.types import Frames, VideoError

VideoSource = Path | bytes | BinaryIO  # a file or a folder of images, the content of a file, or an open file


@contextmanager
def open_video(source: VideoSource, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file.

    Args:
        source: The file. An open file is read from its beginning.
        threads: Number of threads that decode.

    Yields:
        The container and its video stream: the one that FFmpeg's own programs choose, but never a cover picture.

    Raises:
        VideoError: The file is empty, has no video stream or cannot be read, also within the block.
    """
    try:
        with av.open(_openable(source), "r", metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                raise VideoError("the file has no video stream")
            best = container.streams.best("video")
            stream = best if best in streams else streams[0]
            stream.thread_count = threads
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"cannot be read as a video: {error.strerror or error}") from error


def _openable(source: VideoSource) -> str | BinaryIO:
    """Return what PyAV opens. An empty file is refused here, since FFmpeg's message about it does not say so."""
    if isinstance(source, Path):
        empty = source.stat().st_size == 0
    else:
        source = BytesIO(source) if isinstance(source, bytes) else source
        empty = source.seek(0, SEEK_END) == 0
        source.seek(0)
    if empty:
        raise VideoError("the file is empty")
    return str(source) if isinstance(source, Path) else source


def stream_timing(stream: VideoStream) -> StreamTiming:
    """Return the units of time that the header of a stream states."""
    rate = stream.average_rate
    return StreamTiming(float(stream.time_base or 0), float(1 / rate) if rate else 0.0)


def demux(container: InputContainer, stream: VideoStream, errors: list[str]) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of a stream in decode order, as far as the file can be read; truncation adds to `errors`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            errors.append(f"the file is truncated ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def decode_packet(stream: VideoStream, packet: Packet[VideoStream] | None, errors: list[str]) -> list[VideoFrame]:
    """Return the frames that a packet completes (None flushes the decoder); damage adds to `errors`."""
    try:
        frames: list[VideoFrame] = stream.codec_context.decode(packet)
        return frames
    except av.FFmpegError as error:
        errors.append(f"a packet cannot be decoded ({error.strerror})")
        return []


def decoded_frames(container: InputContainer, stream: VideoStream, errors: list[str]) -> Iterator[VideoFrame]:
    """Yield all frames that can be decoded, in presentation order; what is damaged is skipped and adds to `errors`."""
    for packet in chain(demux(container, stream, errors), [None]):
        for frame in decode_packet(stream, packet, errors):
            frame.time_base = stream.time_base
            yield frame


def describe_damage(n_frames: int, header_frames: int, errors: Sequence[str]) -> str | None:
    """Return what is wrong with a file of which `n_frames` could be read, in one line; None for an undamaged file."""
    if header_frames > n_frames:
        return f"the file is damaged: its header states {header_frames} frames, {n_frames} could be read"
    return f"the file is damaged: {errors[0]}" if errors else None


class FrameConverter:
    """Converts decoded frames to RGB of one size, with a scaler that is set up once for all of them.

    Args:
        resize: Width and height in pixels.
    """

    def __init__(self, resize: tuple[int, int]) -> None:
        self.resize = resize
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame, into: Frames) -> None:
        """Resize a frame, rotate it as the file's display matrix says, and write it into an array H W 3."""
        turns = round(frame.rotation / 90) % 4
        width, height = reversed(self.resize) if turns % 2 else self.resize
        # FFmpeg scales to planes several times faster than to interleaved pixels.
        planar = self._scaler.reformat(frame, width, height, "gbrp", threads=1)
        stored = np.rot90(into, -turns) if turns else into
        for plane, channel in zip(planar.planes, (1, 2, 0), strict=True):
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
            stored[..., channel] = lines[:, :width]
