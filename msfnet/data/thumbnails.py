"""Small pictures of videos for pages: frames spread over each, side by side. A video that cannot be read has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msfnet.data.sampling import uniform_clips
from msfnet.data.video.decode import read_clips
from msfnet.types import FrameFormat, Frames, Indices, VideoError

THUMBNAIL_FORMAT = FrameFormat((96, 72))
FRAMES = 6


def thumbnail_plan(video_frames: int) -> Indices:
    """The frames that a picture shows of a video: 1 T."""
    return uniform_clips(video_frames, FRAMES, 1)


def side_by_side(frames: Frames) -> Frames:
    """T H W 3 -> H T*W 3, scaled down by a whole factor to about the height of THUMBNAIL_FORMAT."""
    factor = max(1, round(frames.shape[1] / THUMBNAIL_FORMAT.resize[1]))
    t, height, width = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    blocks = frames[:, : height * factor, : width * factor].reshape(t, height, factor, width, factor, 3)
    return np.concatenate(list(blocks.mean((2, 4)).astype(np.uint8)), axis=1)


def file_thumbnails(paths: Sequence[str]) -> dict[str, Frames]:
    """Pictures H W 3 of the video files at these paths."""
    pictures = {}
    for path in dict.fromkeys(paths):
        try:
            clip = read_clips(Path(path), thumbnail_plan, THUMBNAIL_FORMAT)
        except VideoError:
            continue
        pictures[path] = side_by_side(clip.frames[0])
    return pictures
