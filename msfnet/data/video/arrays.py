"""Videos that are arrays of frames in memory: resampled and resized as video files are."""

from __future__ import annotations

import numpy as np
from av import VideoFrame

from msfnet.data.video.container import FrameConverter
from msfnet.data.video.decode import gather_clip
from msfnet.data.video.timestamps import StreamTiming
from msfnet.types import Clip, FrameFormat, Frames, FrameSampler, UserError


def check_frames(frames: Frames, fps: float | None, frame_format: FrameFormat) -> None:
    """Refuse what `read_array` cannot read.

    Args:
        frames: The array.
        fps: Frames per second of the array, if known.
        frame_format: The format that it would be read in.

    Raises:
        UserError: Frames are not uint8 T H W 3, or `fps` is missing although the format has a frame rate.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(f"expected frames uint8 T H W 3, found {frames.dtype} of shape {frames.shape}")
    if fps is not None and not 0 < fps < float("inf"):
        raise UserError(f"expected fps above 0, found {fps:g}")
    if frame_format.fps and fps is None:
        raise UserError(
            f"expected the frame rate of the array, since the network was trained at {frame_format.fps:g} fps; pass "
            "it, for example fps=25.0"
        )


def read_array(frames: Frames, fps: float | None, sampler: FrameSampler, frame_format: FrameFormat) -> Clip:
    """Read clips of an array of frames, as `decode.read_clips` reads those of a file.

    Args:
        frames: uint8 T H W 3, RGB, at least one frame.
        fps: Frames per second of the array; None is allowed only if `frame_format` reads every frame.
        sampler: Maps the number of frames of the array, at the frame rate of the format, to frame indices V T.
        frame_format: Size and frame rate that frames are read at.

    Returns:
        The chosen frames, with their times if `fps` is given.

    Raises:
        VideoError: The frame rate is too low to be resampled to that of the format.
    """
    timing = StreamTiming(tick_seconds=0.0, frame_seconds=1 / fps if fps else 0.0)
    resampled = timing.resample([], len(frames), frame_format.fps)
    indices = resampled[sampler(len(resampled))]
    numbers, positions = np.unique(indices, return_inverse=True)
    width, height = frame_format.resize
    resized, convert = np.empty((len(numbers), height, width, 3), np.uint8), FrameConverter(frame_format.resize)
    for number, into in zip(numbers.tolist(), resized, strict=True):
        convert(VideoFrame.from_ndarray(np.ascontiguousarray(frames[number]), format="rgb24"), into)
    times = timing.seconds([], indices)
    return gather_clip(resized, positions.reshape(indices.shape), len(resampled), times=times)
