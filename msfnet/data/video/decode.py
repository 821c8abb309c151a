"""Decodes clips of video files and frame folders with PyAV: only the packets that chosen frames need are decoded.

Files without timestamps and damaged files are decoded completely, since their packets do not determine the frames.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from msfnet.data.video.container import (
    FrameConverter,
    VideoSource,
    decoded_frames,
    describe_damage,
    open_video,
    stream_timing,
)
from msfnet.data.video.frame_folders import frame_files
from msfnet.data.video.packet_index import PacketIndex, decode_chosen, index_packets
from msfnet.data.video.timestamps import StreamTiming
from msfnet.types import Clip, Floats, FrameFormat, Frames, FrameSampler, Indices, VideoError


def read_clips(source: VideoSource, sampler: FrameSampler, frame_format: FrameFormat, threads: int = 1) -> Clip:
    """Read the frames that a sampler chooses.

    A variable frame rate is first made constant: see `timestamps.resample`. The sampler is called with the number of
    frames that the packets state and, if fewer can be decoded, again with the true number.

    Args:
        source: A video file, a folder with one image per frame, the content of a file, or an open file.
        sampler: Maps the number of frames of the video, at the frame rate of the format, to frame indices V T.
        frame_format: Size and frame rate that frames are read at. A folder has no frame rate: all its frames count.
        threads: Number of threads that decode.

    Returns:
        The frames V T H W 3 with their presentation times. A damaged file of which frames can be read has a `warning`.

    Raises:
        VideoError: No frame can be decoded.
    """
    if isinstance(source, Path) and source.is_dir():
        return _read_folder(source, sampler, frame_format.resize)
    clip = _read_chosen(source, sampler, frame_format, threads)
    return clip if clip is not None else _read_all(source, sampler, frame_format, threads)


def read_video(path: Path, frame_format: FrameFormat, threads: int = 1) -> Clip:
    """Read every frame of a video, as one clip: 1 T H W 3.

    Args:
        path: A video file or a folder with one image per frame.
        frame_format: Size and frame rate that frames are read at.
        threads: Number of threads that decode.

    Returns:
        The frames, resampled and with times and `warning` as by `read_clips`.

    Raises:
        VideoError: No frame can be decoded.
    """
    if path.is_dir() or frame_format.fps:  # at a lower frame rate, few frames of the file may be needed
        return read_clips(path, lambda n_frames: np.arange(n_frames)[None], frame_format, threads)
    video = _decode_all(path, threads, FrameConverter(frame_format.resize))
    indices = video.resample(frame_format.fps)[None]
    times = video.timing.seconds(video.known_pts(), indices)
    return gather_clip(np.stack(video.frames), indices, len(video.pts), warning=video.damage(), times=times)


def count_frames(path: Path, fps: float = 0.0) -> int:
    """Count the frames of a video without decoding it.

    Args:
        path: A video file or a folder with one image per frame.
        fps: Frames per second that the video is resampled to; 0 counts the frames of the file.

    Returns:
        The number that the packets state. Of a damaged file, fewer frames may be decodable.

    Raises:
        VideoError: The file is not a video.
    """
    if path.is_dir():
        return len(frame_files(path))
    with open_video(path) as (container, stream):
        return len(index_packets(container, stream).resample(fps))


def frame_size(path: Path) -> tuple[int, int]:
    """Find the size of the frames of a video.

    Args:
        path: A video file or a folder with one image per frame.

    Returns:
        Width and height in pixels, after the rotation that the file asks for.

    Raises:
        VideoError: No frame can be decoded.
    """
    if path.is_dir():
        path = _images(path)[0]
    with open_video(path) as (container, stream):
        frame = next(decoded_frames(container, stream, []), None)
        if frame is None:
            raise VideoError("no frame can be decoded")
        quarter_turns = round(frame.rotation / 90) % 2
        return (frame.height, frame.width) if quarter_turns else (frame.width, frame.height)


@dataclass(frozen=True)
class FrameSelection:
    """The frames that a sampler chooses of a video file, for another decoder than PyAV.

    Attributes:
        indices: V T, indices of frames of the file in presentation order.
        video_frames: Number of frames of the video, at the frame rate that it is read at.
        times: V T, presentation times in seconds; see `Clip`.
        stream_index: Number of the video stream in the file.
    """

    indices: Indices
    video_frames: int
    times: Floats | None
    stream_index: int


def select_frames(path: Path, sampler: FrameSampler, fps: float) -> FrameSelection | None:
    """Choose frames of a file by its packets alone.

    Args:
        path: A video file.
        sampler: Maps the number of frames of the video, at that frame rate, to frame indices V T.
        fps: Frames per second that the video is resampled to; 0 reads every frame.

    Returns:
        The selection, or None for a damaged file or one without timestamps, whose frames only decoding can count.

    Raises:
        VideoError: The file is not a video.
    """
    with open_video(path) as (container, stream):
        index = index_packets(container, stream)
        return _select(index, sampler, fps, stream.index) if _is_reliable(index) else None


def gather_clip(
    frames: Frames, indices: Indices, video_frames: int, *, warning: str | None = None, times: Floats | None = None
) -> Clip:
    """Make a clip of decoded frames.

    Args:
        frames: T H W 3, decoded frames.
        indices: V T, positions in `frames`.
        video_frames: Number of frames of the video, at the frame rate that it is read at.
        warning: What is wrong with the video.
        times: V T, presentation times in seconds.

    Returns:
        The clip; `padded` if it has more frames than the video.
    """
    in_order = np.array_equal(indices.ravel(), np.arange(len(frames)))  # the usual case, which needs no copy
    chosen = frames.reshape(*indices.shape, *frames.shape[1:]) if in_order else frames[indices]
    return Clip(chosen, video_frames, padded=video_frames < indices.shape[-1], warning=warning, times=times)


# Partial decoding


def _is_reliable(index: PacketIndex) -> bool:
    return bool(index.pts) and not index.damage()


def _select(index: PacketIndex, sampler: FrameSampler, fps: float, stream_index: int) -> FrameSelection:
    resampled = index.resample(fps)
    indices = resampled[sampler(len(resampled))]
    return FrameSelection(indices, len(resampled), index.timing.seconds(index.pts, indices), stream_index)


def _read_chosen(source: VideoSource, sampler: FrameSampler, frame_format: FrameFormat, threads: int) -> Clip | None:
    """Return the clip, with only the packets decoded that it needs; None if a chosen frame is not found that way."""
    with open_video(source, threads) as (container, stream):
        index = index_packets(container, stream)
        if not _is_reliable(index):
            return None
        selection = _select(index, sampler, frame_format.fps, stream.index)
        numbers, positions = np.unique(selection.indices, return_inverse=True)
        position_of = {index.pts[number]: position for position, number in enumerate(numbers.tolist())}
        frames, n_found = np.empty((len(numbers), *frame_format.resize[::-1], 3), np.uint8), 0
        convert = FrameConverter(frame_format.resize)
        with index.reread(source, threads) as (decoding_stream, packets):
            for frame in decode_chosen(decoding_stream, packets, index, position_of):
                if frame.pts in position_of:
                    convert(frame, frames[position_of[frame.pts]])
                    n_found += 1
    if n_found != len(numbers) or index.errors:
        return None
    positions = positions.reshape(selection.indices.shape)
    return gather_clip(frames, positions, selection.video_frames, times=selection.times)


# Complete decoding


@dataclass
class _DecodedVideo:
    """What decoding a whole file gives."""

    header_frames: int  # number of frames by the header; 0 if it states none
    timing: StreamTiming
    pts: list[int | None] = field(default_factory=list)  # of each frame
    frames: list[Frames] = field(default_factory=list)  # H W 3 each, of those that were converted
    errors: list[str] = field(default_factory=list)

    def known_pts(self) -> list[int]:
        """Return the timestamps, or none unless every frame has one and they increase."""
        known = [pts for pts in self.pts if pts is not None]
        increasing = len(known) == len(self.pts) and all(a < b for a, b in pairwise(known))
        return known if increasing else []

    def resample(self, fps: float) -> Indices:
        """Return the frame indices at a constant frame rate."""
        return self.timing.resample(self.known_pts(), len(self.pts), fps)

    def damage(self) -> str | None:
        """Return the damage of the file in one line; None for an undamaged file."""
        return describe_damage(len(self.pts), self.header_frames, self.errors)


def _decode_all(
    source: VideoSource, threads: int, convert: FrameConverter | None = None, numbers: Collection[int] | None = None
) -> _DecodedVideo:
    """Decode a whole file and convert the frames with these numbers (None: all); without `convert`, only count."""
    with open_video(source, threads) as (container, stream):
        video = _DecodedVideo(stream.frames, stream_timing(stream))
        for number, frame in enumerate(decoded_frames(container, stream, video.errors)):
            video.pts.append(frame.pts)
            if convert and (numbers is None or number in numbers):
                video.frames.append(np.empty((*convert.resize[::-1], 3), np.uint8))
                convert(frame, video.frames[-1])
    if not video.pts:
        raise VideoError("no frame can be decoded" + (f": {video.errors[0]}" if video.errors else ""))
    return video


def _read_all(source: VideoSource, sampler: FrameSampler, frame_format: FrameFormat, threads: int) -> Clip:
    """Return the clip of a file that is decoded twice: once to count its frames and once to convert the chosen ones."""
    video = _decode_all(source, threads)
    resampled = video.resample(frame_format.fps)
    indices = resampled[sampler(len(resampled))]
    numbers, positions = np.unique(indices, return_inverse=True)
    chosen = _decode_all(source, threads, FrameConverter(frame_format.resize), set(numbers.tolist())).frames
    times = video.timing.seconds(video.known_pts(), indices)
    positions = positions.reshape(indices.shape)
    return gather_clip(np.stack(chosen), positions, len(resampled), warning=video.damage(), times=times)


# Frame folders


def _images(folder: Path) -> list[Path]:
    images = frame_files(folder)
    if not images:
        raise VideoError("the folder holds no images")
    return images


def _read_folder(folder: Path, sampler: FrameSampler, resize: tuple[int, int]) -> Clip:
    images = _images(folder)
    indices = sampler(len(images))
    numbers, positions = np.unique(indices, return_inverse=True)
    frames = []
    for number in numbers.tolist():
        try:
            frames.append(_decode_all(images[number], 1, FrameConverter(resize), {0}).frames[0])
        except VideoError as error:
            raise VideoError(f"{images[number].name}: {error}") from error
    return gather_clip(np.stack(frames), positions.reshape(indices.shape), len(images))
