"""Clip sampling by hand-written tables: no video is near."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.sampling import (
    centred_clips,
    dense,
    even_clips,
    jittered,
    random_interval,
    scored_clips,
    segments,
    short_clip,
    train_sampler,
    train_samplers,
)
from msfnet.recipe import load_recipe

numbers = st.integers(1, 400)
lengths = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
intervals = st.integers(1, 9)
sampler_names = st.sampled_from(sorted(train_samplers(1)))


@pytest.mark.parametrize(
    ("video_frames", "frames", "expected"),
    [(1, 4, [0, 0, 0, 0]), (3, 5, [0, 1, 2, 2, 2]), (4, 4, [0, 1, 2, 3])],
)
def test_short_video_repeats_its_last_frame(video_frames, frames, expected):
    assert short_clip(video_frames, frames).tolist() == expected


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
def test_even_clips(video_frames, frames, clips, expected):
    assert even_clips(video_frames, frames, clips).tolist() == expected


@pytest.mark.parametrize(
    ("video_frames", "frames", "clips", "interval", "expected"),
    [
        (9, 3, 1, 1, [[3, 4, 5]]),
        (10, 4, 1, 2, [[2, 4, 6, 8]]),
        (20, 4, 2, 2, [[2, 4, 6, 8], [12, 14, 16, 18]]),
        (7, 4, 1, 5, [[0, 2, 4, 6]]),  # the widest interval that fits
        (5, 5, 3, 2, [[0, 1, 2, 3, 4]] * 3),
        (2, 4, 1, 2, [[0, 1, 1, 1]]),
        (5, 1, 1, 2, [[2]]),
    ],
)
def test_centred_clips(video_frames, frames, clips, interval, expected):
    assert centred_clips(video_frames, frames, clips, interval).tolist() == expected


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
        (8, 4, 5, 1, [1, 3, 5, 7]),  # the widest interval that fits
        (4, 4, 2, 0, [0, 1, 2, 3]),
        (3, 4, 2, 0, [0, 1, 2, 2]),
        (5, 1, 2, 4, [4]),
    ],
)
def test_dense(video_frames, frames, interval, start, expected):
    assert dense(video_frames, frames, Draws(start), interval_frames=interval).tolist() == expected


@given(numbers, lengths, intervals, seeds)
def test_dense_clips_are_as_far_apart_as_those_that_are_scored(video_frames, frames, interval, seed):
    clip = dense(video_frames, frames, np.random.default_rng(seed), interval_frames=interval)
    assert np.diff(clip).tolist() == np.diff(centred_clips(video_frames, frames, 1, interval)[0]).tolist()
    assert 0 <= clip.min() <= clip.max() < video_frames


def test_segments():
    assert segments(8, 4, Draws(0.0, 0.99, 0.5, 0.4)).tolist() == [0, 3, 5, 6]
    assert segments(3, 4, Draws()).tolist() == [0, 1, 2, 2]


def first_frames(video_frames, frames, rng):
    """A sampler that shows which part of a video it was given: its first frames and its last."""
    return np.append(np.arange(frames - 1), video_frames - 1)


class Jitters:
    """A generator for `jittered`: one share and one start."""

    def __init__(self, share, start):
        self.share, self.start = share, start

    def random(self):
        return self.share

    def integers(self, low, high):
        assert low <= self.start < high
        return self.start


@pytest.mark.parametrize(
    ("video_frames", "frames", "jitter", "share", "start", "expected"),
    [
        (100, 4, 0.5, 0.0, 0, [0, 1, 2, 99]),  # all of it
        (100, 4, 0.5, 1.0, 0, [0, 1, 2, 49]),
        (100, 4, 0.5, 1.0, 50, [50, 51, 52, 99]),
        (100, 4, 0.2, 0.5, 10, [10, 11, 12, 99]),
        (9, 4, 0.5, 0.5, 2, [2, 3, 4, 8]),  # 6.75 frames are 7
        (5, 4, 0.9, 1.0, 1, [1, 2, 3, 4]),  # never fewer than the clip needs
        (3, 4, 0.9, 1.0, 0, [0, 1, 2, 2]),  # a short video is taken whole
    ],
)
def test_jittered(video_frames, frames, jitter, share, start, expected):
    clip = jittered(video_frames, frames, Jitters(share, start), sampler=first_frames, jitter=jitter)
    assert clip.tolist() == expected


def test_without_jitter_samplers_are_as_they_were():
    for name, sampler in train_samplers(2).items():
        drawn, plain = (draw(100, 8, np.random.default_rng(1)) for draw in (train_sampler(name, 0.0, 2), sampler))
        assert drawn.tolist() == plain.tolist()


@given(numbers, lengths, seeds, sampler_names, st.floats(0, 0.99))
def test_jittered_clips_lie_inside_in_order_and_repeat_only_when_short(video_frames, frames, seed, name, jitter):
    clip = train_sampler(name, jitter, 2)(video_frames, frames, np.random.default_rng(seed))
    steps = np.diff(clip)
    assert clip.dtype == np.int64
    assert len(clip) == frames
    assert 0 <= clip.min() <= clip.max() < video_frames
    assert (steps >= (1 if video_frames >= frames else 0)).all()
    if name == "random-interval" and video_frames >= frames:
        assert len(set(steps)) <= 1


def test_jittered_clips_are_slower_by_up_to_what_was_asked():
    spans = [np.ptp(train_sampler("segments", 0.5, 1)(1000, 8, np.random.default_rng(seed))) for seed in range(300)]
    whole = [np.ptp(segments(1000, 8, np.random.default_rng(seed))) for seed in range(300)]
    assert min(whole) > 700
    assert min(spans) < 450
    assert max(spans) > 850


@given(numbers, lengths, seeds, sampler_names)
def test_training_clips_lie_inside_in_order_and_repeat_only_when_short(video_frames, frames, seed, name):
    clip = train_samplers(2)[name](video_frames, frames, np.random.default_rng(seed))
    steps = np.diff(clip)
    assert len(clip) == frames
    assert 0 <= clip.min() <= clip.max() < video_frames
    assert (steps >= 0).all()
    if video_frames >= frames:
        assert (steps > 0).all()
    if name == "random-interval" and video_frames >= frames:
        assert len(set(steps)) <= 1


@given(
    numbers, lengths, st.integers(1, 10), st.sampled_from(["even", "centred"]), st.sampled_from(["rgb", "difference"])
)
def test_scored_clips_lie_inside_in_order(video_frames, frames, clips, sampling, kind):
    recipe = load_recipe("paper", [f"data.frames={frames}", f"data.sampling={sampling}", f"data.input={kind}"])
    indices = scored_clips(recipe.preprocessing(), clips, video_frames)
    frames += kind == "difference"  # a difference needs the frame after the last, too
    assert indices.shape == (clips, frames)
    assert 0 <= indices.min() <= indices.max() < video_frames
    assert (np.diff(indices, axis=1) >= (1 if video_frames >= frames else 0)).all()
    assert (np.diff(indices[:, 0]) >= 0).all()


@given(st.integers(8, 400))
def test_random_interval_reaches_both_ends(video_frames):
    clips = [random_interval(video_frames, 8, np.random.default_rng(seed)) for seed in range(300)]
    assert min(c[1] - c[0] for c in clips) == 1
    assert max(c[1] - c[0] for c in clips) >= 0.9 * ((video_frames - 1) // 7) - 1
