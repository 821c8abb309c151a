"""Timestamps to frame indices, as tables written by hand and as properties of any timestamps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.video.timestamps import MAX_REPEATS, StreamTiming, resample
from msfnet.types import VideoError


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([], []),
        ([5], [0]),
        ([0, 40, 80, 120], [0, 1, 2, 3]),
        ([3600, 7200, 10800], [0, 1, 2]),  # does not start at zero
        ([0, 33, 67, 100, 133], [0, 1, 2, 3, 4]),  # rounded to milliseconds
        ([0, 10, 20, 30, 90], [1, 3, 3, 3, 4]),  # the fourth frame is displayed for long
        ([0, 60, 70, 80, 90], [0, 0, 0, 2, 4]),
        ([0, 40, 120, 160], [0, 1, 2, 3]),  # a frame is missing
    ],
)
def test_resample_keeps_the_number_of_frames(pts, expected):
    assert resample(pts).tolist() == expected


@given(st.integers(1, 60), st.integers(1, 1000), st.data())
def test_nearly_constant_frame_rate_gives_every_frame_once(n, step, data):
    jitter = data.draw(st.lists(st.integers(-(step // 5), step // 5), min_size=n, max_size=n))
    assert resample([i * step + j for i, j in enumerate(jitter)]).tolist() == list(range(n))


ANY_PTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True).map(sorted)


@given(ANY_PTS)
def test_resample_covers_the_whole_video(pts):
    indices = resample(pts)
    assert len(indices) == len(pts)
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0
    assert indices[-1] == len(pts) - 1


FPS_25_MS = list(range(0, 520, 40))  # 13 frames


@pytest.mark.parametrize(
    ("pts_ms", "fps", "expected"),
    [
        ([], 25, []),
        ([5], 25, [0]),
        (FPS_25_MS, 25, list(range(13))),
        (FPS_25_MS, 25 / 3, [1, 4, 7, 10]),
        (FPS_25_MS, 8.33, [1, 4, 7, 10]),
        ([*FPS_25_MS, 520], 8.33, [1, 4, 7, 10, 13]),
        ([7000 + pts for pts in FPS_25_MS], 8.33, [1, 4, 7, 10]),  # does not start at zero
        ([0, 17, 33, 50, 67, 83, 100, 117], 30, [1, 3, 5, 7]),  # 60 fps, rounded to milliseconds
        ([0, 33, 67, 100, 133, 167, 200, 233], 20, [0, 2, 3, 5, 6]),  # 30 fps
        ([0, 100, 200], 25, [0, 0, 1, 1, 1, 2, 2, 2]),  # to a higher frame rate
        ([0, 1000], 5, [0] * 5 + [1] * 5),
        ([*range(0, 1000, 100), 10_000], 1, [6] + 9 * [9] + [10]),  # the tenth frame is displayed for nine seconds
        ([*range(0, 1000, 100), 10_000], 10, [*range(10)] + 90 * [9] + 10 * [10]),
        ([0, 60, 70, 80, 90], 50, [0, 0, 0, 2, 4, 4]),
        ([0, 40], 0.5, [1]),  # shorter than a step
    ],
)
def test_resample_to_a_frame_rate(pts_ms, fps, expected):
    assert resample(pts_ms, fps, 0.001).tolist() == expected


@given(ANY_PTS, st.floats(0.01, 1000))
def test_resample_to_a_frame_rate_keeps_the_duration(pts_ms, fps):
    seconds = (pts_ms[-1] - pts_ms[0]) * len(pts_ms) / max(1, len(pts_ms) - 1) / 1000
    try:
        indices = resample(pts_ms, fps, 0.001)
    except VideoError:
        assert seconds * fps > MAX_REPEATS * len(pts_ms)
        return
    assert len(indices) == 1 or abs(len(indices) - seconds * fps) <= 0.5 + 1e-6
    assert len(indices) >= 1
    assert (np.diff(indices) >= 0).all()
    assert 0 <= indices[0] <= indices[-1] < len(pts_ms)


@given(st.integers(1, 100), st.integers(1, 5), st.integers(25, 1000), st.data())
def test_dividing_a_nearly_constant_frame_rate(n, divisor, step_ms, data):
    """Timestamps are off by up to 1/25 of a step; the chosen frames are still evenly spaced."""
    off = st.integers(-(step_ms // 25), step_ms // 25)
    inner = [i * step_ms + data.draw(off) for i in range(1, n - 1)]
    pts_ms = [0, *inner, (n - 1) * step_ms] if n > 1 else [0]
    indices = resample(pts_ms, 1000 / step_ms / divisor, 0.001).tolist()
    assert indices == [min(i * divisor + divisor // 2, n - 1) for i in range(len(indices))]
    assert len(indices) == 1 or abs(len(indices) - n / divisor) <= 0.5 + 1e-6


def test_frames_too_far_apart_to_be_resampled():
    with pytest.raises(VideoError, match=r"are 3600 seconds apart, too far to be resampled to 8\.33 fps"):
        resample([0, 3_600_000], 8.33, 0.001)
    assert resample([0, 3_600_000]).tolist() == [0, 1]


def test_unknown_time_base_ignores_the_frame_rate():
    assert resample([0, 60, 70, 80, 90], 50, 0.0).tolist() == resample([0, 60, 70, 80, 90]).tolist()


@pytest.mark.parametrize(
    ("timing", "pts", "expected"),
    [
        (StreamTiming(0.001, 0.04), [500, 530, 700, 710], [[0.0, 0.2], [0.21, 0.21]]),  # counted from the first frame
        (StreamTiming(0.001, 0.04), [], [[0.0, 0.08], [0.12, 0.12]]),  # by the frame rate
        (StreamTiming(0.0, 0.04), [0, 1, 5, 7], [[0.0, 0.08], [0.12, 0.12]]),
        (StreamTiming(0.001, 0.0), [], None),
    ],
)
def test_seconds_of_frames(timing, pts, expected):
    seconds = timing.seconds(pts, np.array([[0, 2], [3, 3]]))
    assert seconds is expected is None or np.allclose(seconds, expected, atol=1e-12)


def test_without_timestamps_the_frame_rate_decides():
    assert StreamTiming(0.001, 0.04).resample([], 13, 25 / 3).tolist() == [1, 4, 7, 10]
    assert StreamTiming(0.001, 0.0).resample([], 3, 25).tolist() == [0, 1, 2]
