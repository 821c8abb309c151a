"""Presentation timestamps (PTS): which frame is displayed when, and resampling to a constant frame rate.

Arithmetic on timestamps alone, independent of files and decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msfnet.types import Floats, Indices, VideoError

MAX_REPEATS = 1000  # resampled frames per frame of the file, on average: only wrong timestamps give more


def resample(pts: Sequence[int], fps: float = 0.0, tick_seconds: float = 0.0) -> Indices:
    """Choose the frame that is displayed at the middle of each time step of a constant frame rate.

    A file of constant frame rate gives 0, 1, 2, ... without `fps`, even where its container rounds timestamps. With
    `fps` the middles are moved later by a tenth of a step or of a frame, whichever is shorter: at half the frame rate
    of the file, every middle is exactly where one frame replaces another, and rounding would choose between the two.

    Args:
        pts: Presentation timestamps of all n frames, in ticks and increasing.
        fps: Frames per second to resample to; 0 keeps the number of frames and makes a variable frame rate constant.
        tick_seconds: Duration of one tick; where it is 0, which means unknown, `fps` does not apply.

    Returns:
        Frame indices that never decrease: n without `fps`, else the duration times `fps`, rounded, and at least one.

    Raises:
        VideoError: The frames are so far apart that each would be repeated more than MAX_REPEATS times.
    """
    n = len(pts)
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    starts = np.asarray(pts, dtype=np.float64)
    mean_ticks = (starts[-1] - starts[0]) / (n - 1)
    if not fps * tick_seconds:
        middles = starts[0] + (np.arange(n) + 0.5) * mean_ticks
    else:
        step_ticks = 1 / (fps * tick_seconds)
        steps = max(1, round(n * mean_ticks / step_ticks))
        if steps > MAX_REPEATS * n:
            raise VideoError(
                f"its frames are {mean_ticks * tick_seconds:.0f} seconds apart, too far to be resampled to {fps:g} fps"
            )
        delay_ticks = min(mean_ticks, step_ticks) / 10
        middles = starts[0] + (np.arange(steps) + 0.5) * step_ticks + delay_ticks
    return np.searchsorted(starts, middles, side="right") - 1


@dataclass(frozen=True)
class StreamTiming:
    """The units of time of a video stream, each 0 where the file does not state it.

    Attributes:
        tick_seconds: Duration of one tick of the timestamps: the time base.
        frame_seconds: Duration of one frame by the frame rate in the header.
    """

    tick_seconds: float
    frame_seconds: float

    def resample(self, pts: Sequence[int], n_frames: int, fps: float) -> Indices:
        """Resample by timestamps or, in files without them (some AVI), by the frame rate in the header."""
        if pts:
            return resample(pts, fps, self.tick_seconds)
        return resample(range(n_frames), fps, self.frame_seconds)

    def seconds(self, pts: Sequence[int], indices: Indices) -> Floats | None:
        """Return presentation times from the first frame in seconds; None without timestamps and frame rate."""
        if pts and self.tick_seconds:
            ticks = np.asarray(pts, dtype=np.int64)
            return (ticks[indices] - ticks[0]) * self.tick_seconds
        return indices * self.frame_seconds if self.frame_seconds else None
