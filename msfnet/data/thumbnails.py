"""Thumbnails of videos for pages: frames spread over each video, side by side. An unreadable video has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msfnet.data.sampling import uniform_clips
from msfnet.data.video.decode import read_clips
from msfnet.types import FrameFormat, Frames, Indices, VideoError

THUMBNAIL_FORMAT = FrameFormat((96, 72))
NUM_FRAMES = 6


def thumbnail_sampler(video_frames: int) -> Indices:
    """Return the frames of a thumbnail, spread evenly over a video of `video_frames` frames: 1 T."""
    return uniform_clips(video_frames, NUM_FRAMES, 1)


def side_by_side(frames: Frames) -> Frames:
    """Arrange the frames of a video in a row, reduced by a whole factor to about the height of THUMBNAIL_FORMAT.

    Args:
        frames: T H W 3.

    Returns:
        The thumbnail H' T*W' 3.
    """
    factor = max(1, round(frames.shape[1] / THUMBNAIL_FORMAT.resize[1]))
    t, height, width = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    blocks = frames[:, : height * factor, : width * factor].reshape(t, height, factor, width, factor, 3)
    return np.concatenate(list(blocks.mean((2, 4)).astype(np.uint8)), axis=1)


def file_thumbnails(paths: Sequence[str]) -> dict[str, Frames]:
    """Read thumbnails of video files.

    Args:
        paths: The files.

    Returns:
        A thumbnail H W 3 by path, for every file that can be read.
    """
    thumbnails = {}
    for path in dict.fromkeys(paths):
        try:
            clip = read_clips(Path(path), thumbnail_sampler, THUMBNAIL_FORMAT)
        except VideoError:
            continue
        thumbnails[path] = side_by_side(clip.frames[0])
    return thumbnails
