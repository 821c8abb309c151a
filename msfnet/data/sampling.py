"""Which videos an epoch shows when rare classes are to be seen more often: integers in, indices out.

Knows no video and no epoch: whatever is random comes from the generator that is passed in.


Which frames make a clip: integers in, indices out. Never sees a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from msfnet.types import Indices, Ints, Preprocessing


def balanced_order(labels: Sequence[int], balance: float, rng: np.random.Generator) -> Ints:
    """The order of an epoch of as many turns as there are videos, by the `labels` of these.

    A class of n videos gets turns in proportion to n^(1 - balance): with 1 every class has the same number, to within
    one, and on average over epochs exactly. Within a class no video has two turns more than another. Returns the number
    of the video at each turn.
    """
    classes, number = np.unique(np.asarray(labels), return_inverse=True)
    shares = np.bincount(number) ** (1 - balance)
    ends = np.floor(len(labels) * np.cumsum(shares) / shares.sum() + rng.random())
    ends[-1] = len(labels)
    quotas = np.diff(ends.astype(np.int64), prepend=0)
    turns = [np.resize(rng.permutation(np.flatnonzero(number == k)), quotas[k]) for k in range(len(classes))]
    return rng.permutation(np.concatenate(turns))


ClipSampler = Callable[[int, int, np.random.Generator], Indices]


def is_short(video_frames: int, frames: int) -> bool:
    return video_frames < frames


def short_clip(video_frames: int, frames: int) -> Indices:
    """All frames of a video that is shorter than the clip, the last one padded: T."""
    return np.minimum(np.arange(frames), video_frames - 1)


def random_interval(video_frames: int, frames: int, rng: np.random.Generator) -> Indices:
    """The paper's training clip (section 4.2): one random interval between all frames, then a random start: T."""
    if is_short(video_frames, frames):
        return short_clip(video_frames, frames)
    longest = (video_frames - 1) // max(1, frames - 1)
    interval = int(rng.integers(1, max(1, longest) + 1))
    start = int(rng.integers(0, video_frames - (frames - 1) * interval))
    return start + interval * np.arange(frames)


def segments(video_frames: int, frames: int, rng: np.random.Generator) -> Indices:
    """One random frame from each of `frames` equal segments of the video: T."""
    if is_short(video_frames, frames):
        return short_clip(video_frames, frames)
    bounds = np.arange(frames + 1) * video_frames // frames
    return bounds[:-1] + np.floor(rng.random(frames) * np.diff(bounds)).astype(np.int64)


def dense(video_frames: int, frames: int, rng: np.random.Generator, *, interval_frames: int) -> Indices:
    """Every `interval_frames`-th frame from a random start: T. What `dense_clips` scores, where it trains."""
    if is_short(video_frames, frames):
        return short_clip(video_frames, frames)
    interval = _fitting(interval_frames, video_frames, frames)
    start = int(rng.integers(0, video_frames - (frames - 1) * interval))
    return start + interval * np.arange(frames)


def _fitting(interval_frames: int, video_frames: int, frames: int) -> int:
    """The interval, or the widest one that fits where the video is too short for it."""
    return min(interval_frames, max(1, (video_frames - 1) // max(1, frames - 1)))


def train_sampler(name: str, frame_interval: int) -> ClipSampler:
    """Return the sampler that `clip.train_sampling` names."""
    samplers: dict[str, ClipSampler] = {
        "random_interval": random_interval,
        "segments": segments,
        "dense": partial(dense, interval_frames=frame_interval),
    }
    return samplers[name]


def uniform_clips(video_frames: int, frames: int, clips: int) -> Indices:
    """Clips that each spread over the whole video, shifted so that together they fill it evenly: V T.

    One clip takes the middle frame of each of `frames` segments.
    """
    if is_short(video_frames, frames):
        return np.tile(short_clip(video_frames, frames), (clips, 1))
    shift = (np.arange(clips)[:, None] + 0.5) / clips
    return np.floor((np.arange(frames)[None, :] + shift) * video_frames / frames).astype(np.int64)


def dense_clips(video_frames: int, frames: int, clips: int, interval_frames: int) -> Indices:
    """Clips of every `interval_frames`-th frame, centered in as many equal parts of the video: V T.

    Where the video is too short for the interval, the widest one that fits is taken.
    """
    if is_short(video_frames, frames):
        return np.tile(short_clip(video_frames, frames), (clips, 1))
    interval = _fitting(interval_frames, video_frames, frames)
    span = (frames - 1) * interval + 1
    center = (np.arange(clips) + 0.5) * video_frames / clips
    start = np.clip(np.floor(center - span / 2 + 0.5).astype(np.int64), 0, video_frames - span)
    return start[:, None] + interval * np.arange(frames)[None, :]


def eval_clips(preprocessing: Preprocessing, clips: int, video_frames: int) -> Indices:
    """The clips to score of a video of so many frames: V T."""
    samplers: dict[str, Callable[[int, int, int], Indices]] = {
        "uniform": uniform_clips,
        "dense": partial(dense_clips, interval_frames=preprocessing.frame_interval),
    }
    return samplers[preprocessing.eval_sampling](video_frames, preprocessing.read_frames, clips)
