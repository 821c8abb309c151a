"""Sampling: which frames of a video make a clip, and which videos an epoch shows if rare classes are oversampled.

Integers in, indices out; no video is opened here. Random numbers come from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from msfnet.types import Indices, Ints, Preprocessing

# Number of frames of the video, number of frames of the clip, generator -> T, frame indices
TrainClipSampler = Callable[[int, int, np.random.Generator], Indices]


def is_short(video_frames: int, frames: int) -> bool:
    """Return whether a video has fewer frames than a clip, so that the clip is padded."""
    return video_frames < frames


def padded_clip(video_frames: int, frames: int) -> Indices:
    """Return all frames of a short video, padded with its last one: T."""
    return np.minimum(np.arange(frames), video_frames - 1)


# Clips for training


def random_interval(video_frames: int, frames: int, rng: np.random.Generator) -> Indices:
    """Draw one interval between consecutive frames, then the start: the training clip of the paper, section 4.2.

    Args:
        video_frames: Number of frames of the video.
        frames: T, number of frames of the clip.
        rng: Draws the interval, from 1 to the largest that fits, and the start.

    Returns:
        Frame indices T; padded if the video is short.
    """
    if is_short(video_frames, frames):
        return padded_clip(video_frames, frames)
    longest = (video_frames - 1) // max(1, frames - 1)
    interval = int(rng.integers(1, max(1, longest) + 1))
    start = int(rng.integers(0, video_frames - (frames - 1) * interval))
    return start + interval * np.arange(frames)


def segments(video_frames: int, frames: int, rng: np.random.Generator) -> Indices:
    """Draw one frame from each of `frames` equal segments of the video: T.

    The segment-based sampling of Wang et al. (2016), "Temporal Segment Networks". See `random_interval` for arguments.
    """
    if is_short(video_frames, frames):
        return padded_clip(video_frames, frames)
    bounds = np.arange(frames + 1) * video_frames // frames
    return bounds[:-1] + np.floor(rng.random(frames) * np.diff(bounds)).astype(np.int64)


def dense(video_frames: int, frames: int, rng: np.random.Generator, *, interval_frames: int) -> Indices:
    """Take every `interval_frames`-th frame from a random start: T. `dense_clips` is its counterpart in evaluation.

    A video that is too short for the interval gets the largest one that fits. See `random_interval` for arguments.
    """
    if is_short(video_frames, frames):
        return padded_clip(video_frames, frames)
    interval = _fitting_interval(interval_frames, video_frames, frames)
    start = int(rng.integers(0, video_frames - (frames - 1) * interval))
    return start + interval * np.arange(frames)


def _fitting_interval(interval_frames: int, video_frames: int, frames: int) -> int:
    """Return the interval, or the largest one that fits into a shorter video."""
    return min(interval_frames, max(1, (video_frames - 1) // max(1, frames - 1)))


def train_clip_sampler(name: str, frame_interval: int) -> TrainClipSampler:
    """Return the sampler that `clip.train_sampling` of a recipe names."""
    samplers: dict[str, TrainClipSampler] = {
        "random_interval": random_interval,
        "segments": segments,
        "dense": partial(dense, interval_frames=frame_interval),
    }
    return samplers[name]


# Clips for evaluation


def uniform_clips(video_frames: int, frames: int, clips: int) -> Indices:
    """Spread each clip over the whole video; several clips are shifted so that together they cover it evenly.

    Args:
        video_frames: Number of frames of the video.
        frames: T, number of frames of a clip.
        clips: V, number of clips. A single clip takes the middle frame of each of T equal segments.

    Returns:
        Frame indices V T; padded if the video is short.
    """
    if is_short(video_frames, frames):
        return np.tile(padded_clip(video_frames, frames), (clips, 1))
    shift = (np.arange(clips)[:, None] + 0.5) / clips
    return np.floor((np.arange(frames)[None, :] + shift) * video_frames / frames).astype(np.int64)


def dense_clips(video_frames: int, frames: int, clips: int, interval_frames: int) -> Indices:
    """Take every `interval_frames`-th frame around the center of each of `clips` equal parts of the video.

    Args:
        video_frames: Number of frames of the video.
        frames: T, number of frames of a clip.
        clips: V, number of clips.
        interval_frames: Distance between consecutive frames of a clip; the largest that fits if the video is shorter.

    Returns:
        Frame indices V T; padded if the video is short.
    """
    if is_short(video_frames, frames):
        return np.tile(padded_clip(video_frames, frames), (clips, 1))
    interval = _fitting_interval(interval_frames, video_frames, frames)
    span = (frames - 1) * interval + 1
    center = (np.arange(clips) + 0.5) * video_frames / clips
    start = np.clip(np.floor(center - span / 2 + 0.5).astype(np.int64), 0, video_frames - span)
    return start[:, None] + interval * np.arange(frames)[None, :]


def eval_clips(preprocessing: Preprocessing, clips: int, video_frames: int) -> Indices:
    """Choose the frames of the clips that a video is scored by.

    Args:
        preprocessing: `eval_sampling`, `frame_interval` and `read_frames` apply.
        clips: V, number of clips.
        video_frames: Number of frames of the video. It comes last so that `partial` makes a `FrameSampler`.

    Returns:
        Frame indices V T.
    """
    samplers: dict[str, Callable[[int, int, int], Indices]] = {
        "uniform": uniform_clips,
        "dense": partial(dense_clips, interval_frames=preprocessing.frame_interval),
    }
    return samplers[preprocessing.eval_sampling](video_frames, preprocessing.read_frames, clips)


# Videos of an epoch


def balanced_order(labels: Sequence[int], balance: float, rng: np.random.Generator) -> Ints:
    """Draw as many videos as there are, rare classes more often.

    A class of n videos is drawn in proportion to n^(1 - balance), rounded such that shares are exact on average over
    epochs. Within a class, no video is drawn two times more often than another.

    Args:
        labels: The class index of each video.
        balance: 0 shows every video once, 1 every class equally often.
        rng: Draws which videos of a class are shown more often, and the order.

    Returns:
        The indices of the videos in the order of the epoch.
    """
    classes, number = np.unique(np.asarray(labels), return_inverse=True)
    shares = np.bincount(number) ** (1 - balance)
    ends = np.floor(len(labels) * np.cumsum(shares) / shares.sum() + rng.random())
    ends[-1] = len(labels)
    quotas = np.diff(ends.astype(np.int64), prepend=0)
    drawn = [np.resize(rng.permutation(np.flatnonzero(number == k)), quotas[k]) for k in range(len(classes))]
    return rng.permutation(np.concatenate(drawn))
