"""Clip sampling as tables written by hand; no video is opened. `test_balance` tests the order of an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.sampling import (
    dense,
    dense_clips,
    eval_clips,
    padded_clip,
    random_interval,
    segments,
    train_clip_sampler,
    uniform_clips,
)
from msfnet.recipe import load_recipe

numbers = st.integers(1, 400)
lengths = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
intervals = st.integers(1, 9)
sampler_names = st.sampled_from(["random_interval", "segments", "dense"])


@pytest.mark.parametrize(
    ("video_frames", "frames", "expected"),
    [(1, 4, [0, 0, 0, 0]), (3, 5, [0, 1, 2, 2, 2]), (4, 4, [0, 1, 2, 3])],
)
def test_padded_clip(video_frames, frames, expected):
    assert padded_clip(video_frames, frames).tolist() == expected


@pytest.mark.parametrize(
    ("video_frames", "frames", "clips", "expected"),
    [
        (8, 4, 1, [[1, 3, 5, 7]]),
        (10, 4, 1, [[1, 3, 6, 8]]),
        (100, 4, 1, [[12, 37, 62, 87]]),
        (8, 4, 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (16, 4, 4, [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]),
        (4, 4, 2, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (3, 4, 2, [[0, 1, 2, 2], [0, 1, 2, 2]]),
        (7, 1, 1, [[3]]),
    ],
)
def test_uniform_clips(video_frames, frames, clips, expected):
    assert uniform_clips(video_frames, frames, clips).tolist() == expected


@pytest.mark.parametrize(
    ("video_frames", "frames", "clips", "interval", "expected"),
    [
        (9, 3, 1, 1, [[3, 4, 5]]),
        (10, 4, 1, 2, [[2, 4, 6, 8]]),
        (20, 4, 2, 2, [[2, 4, 6, 8], [12, 14, 16, 18]]),
        (7, 4, 1, 5, [[0, 2, 4, 6]]),  # the largest interval that fits
        (5, 5, 3, 2, [[0, 1, 2, 3, 4]] * 3),
        (2, 4, 1, 2, [[0, 1, 1, 1]]),
        (5, 1, 1, 2, [[2]]),
    ],
)
def test_dense_clips(video_frames, frames, clips, interval, expected):
    assert dense_clips(video_frames, frames, clips, interval).tolist() == expected


class Draws:
    """A generator that returns given numbers, so that random samplers can be tabulated."""

    def __init__(self, *values):
        self.values = list(values)

    def integers(self, low, high):
        value = self.values.pop(0)
        assert low <= value < high
        return value

    def random(self, n):
        return np.array(self.values[:n])


@pytest.mark.parametrize(
    ("video_frames", "frames", "interval", "start", "expected"),
    [
        (100, 4, 1, 0, [0, 1, 2, 3]),
        (100, 4, 33, 0, [0, 33, 66, 99]),
        (100, 4, 10, 69, [69, 79, 89, 99]),
        (8, 8, 1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (5, 1, 4, 4, [4]),
    ],
)
def test_random_interval(video_frames, frames, interval, start, expected):
    assert random_interval(video_frames, frames, Draws(interval, start)).tolist() == expected


@pytest.mark.parametrize(
    ("video_frames", "frames", "interval", "start", "expected"),
    [
        (100, 4, 1, 0, [0, 1, 2, 3]),
        (100, 4, 1, 96, [96, 97, 98, 99]),  # the last start
        (100, 4, 3, 90, [90, 93, 96, 99]),
        (8, 4, 5, 1, [1, 3, 5, 7]),  # the largest interval that fits
        (4, 4, 2, 0, [0, 1, 2, 3]),
        (3, 4, 2, 0, [0, 1, 2, 2]),
        (5, 1, 2, 4, [4]),
    ],
)
def test_dense(video_frames, frames, interval, start, expected):
    assert dense(video_frames, frames, Draws(start), interval_frames=interval).tolist() == expected


@given(numbers, lengths, intervals, seeds)
def test_dense_intervals_of_training_and_evaluation_are_equal(video_frames, frames, interval, seed):
    clip = dense(video_frames, frames, np.random.default_rng(seed), interval_frames=interval)
    assert np.diff(clip).tolist() == np.diff(dense_clips(video_frames, frames, 1, interval)[0]).tolist()
    assert 0 <= clip.min() <= clip.max() < video_frames


def test_segments():
    assert segments(8, 4, Draws(0.0, 0.99, 0.5, 0.4)).tolist() == [0, 3, 5, 6]
    assert segments(3, 4, Draws()).tolist() == [0, 1, 2, 2]


@given(numbers, lengths, seeds, sampler_names)
def test_training_clips_are_ordered_frames_of_the_video(video_frames, frames, seed, name):
    clip = train_clip_sampler(name, 2)(video_frames, frames, np.random.default_rng(seed))
    steps = np.diff(clip)
    assert len(clip) == frames
    assert 0 <= clip.min() <= clip.max() < video_frames
    assert (steps >= 0).all()
    if video_frames >= frames:
        assert (steps > 0).all()
    if name == "random_interval" and video_frames >= frames:
        assert len(set(steps)) <= 1


@given(
    numbers, lengths, st.integers(1, 10), st.sampled_from(["uniform", "dense"]), st.sampled_from(["rgb", "rgb_diff"])
)
def test_evaluation_clips_are_ordered_frames_of_the_video(video_frames, frames, clips, sampling, kind):
    recipe = load_recipe("paper", [f"clip.num_frames={frames}", f"clip.eval_sampling={sampling}", f"clip.input={kind}"])
    indices = eval_clips(recipe.preprocessing(), clips, video_frames)
    frames += kind == "rgb_diff"  # a difference needs the frame after the last, too
    assert indices.shape == (clips, frames)
    assert 0 <= indices.min() <= indices.max() < video_frames
    assert (np.diff(indices, axis=1) >= (1 if video_frames >= frames else 0)).all()
    assert (np.diff(indices[:, 0]) >= 0).all()


@given(st.integers(8, 400))
def test_random_interval_draws_small_and_large_intervals(video_frames):
    clips = [random_interval(video_frames, 8, np.random.default_rng(seed)) for seed in range(300)]
    assert min(c[1] - c[0] for c in clips) == 1
    assert max(c[1] - c[0] for c in clips) >= 0.9 * ((video_frames - 1) // 7) - 1
