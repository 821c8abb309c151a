"""Clips of videos that are read one at a time: order, reading, and frames of another size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.video_loader import EvalClips, EvalSampler, TrainClips, TrainSampler, VideoLoader, to_tensor
from msfnet.recipe import load_recipe
from msfnet.types import Clip, UserError, VideoError, VideoItem

PREPROCESSING = load_recipe("paper", ["clip.num_frames=4", "clip.crop_size=8", "clip.resize=[12, 10]"]).preprocessing()
ITEMS = [VideoItem(f"{i}.npy", "ab"[i % 2]) for i in range(7)]


def read(item, sampler):
    """A video of 20 frames whose levels are its number and the numbers of the frames; some cannot be read."""
    number = int(item.path[0])
    if number == 3:
        raise VideoError("no video")
    if number == 5:
        raise UserError("expected a video, found none at all")
    video_frames = 2 if number == 6 else 20
    frames = np.zeros((20, 10, 12, 3), np.uint8)
    frames[..., 0], frames[..., 1] = number, np.arange(20)[:, None, None]
    return Clip(frames[sampler(video_frames)], video_frames)


# Order


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 9))
def test_ranks_share_the_batches_of_one_process(n, batch_size, ranks, start_batch):
    whole = EvalSampler(n, batch_size)
    start_batch = min(start_batch, whole.n_batches())
    whole.set_epoch(0, start_batch)
    batches = list(whole)
    assert len(batches) == len(whole)
    assert [i for batch in batches for i in batch] == list(range(n))[start_batch * batch_size :]
    parts = [EvalSampler(n, batch_size, rank, ranks) for rank in range(ranks)]
    for part in parts:
        part.set_epoch(0, start_batch)
    for batch, *shares in zip(batches, *parts, strict=True):
        assert shares == [batch[rank::ranks] for rank in range(ranks)]


def test_train_sampler_draws_every_video_once():
    sampler = TrainSampler(23, 5, seed=1)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        pairs = [pair for batch in sampler for pair in batch]
        assert sorted(video for video, _ in pairs) == list(range(23))
        epochs.append(pairs)
    assert epochs[0] != epochs[1]
    assert [pair for batch in TrainSampler(23, 5, seed=1) for pair in batch] == epochs[0]
    assert [pair for batch in TrainSampler(23, 5, seed=2) for pair in batch] != epochs[0]


# Reading


def test_train_clip_depends_on_its_seed_alone():
    clips = TrainClips(ITEMS, "ab", read, PREPROCESSING, "random_interval")
    sample = clips[2, 7]
    assert (sample.index, sample.label, sample.frames.shape) == (2, 0, (1, 4, 10, 12, 3))
    assert torch.equal(sample.frames, clips[2, 7].frames)
    assert len({clips[2, seed].frames.numpy().tobytes() for seed in range(20)}) > 5


def test_eval_clips_are_fixed():
    clips = EvalClips(ITEMS, "ab", read, PREPROCESSING, 2)
    assert clips[4].frames[:, :, 0, 0, 1].tolist() == [[1, 6, 11, 16], [3, 8, 13, 18]]
    assert clips[4].frames[0, 0, 0, 0, 0] == 4


def test_unreadable_and_short_videos():
    clips = EvalClips(ITEMS, "ab", read, PREPROCESSING, 1)
    assert (clips[3].frames, clips[3].error, clips[3].label) == (None, "no video", 1)
    assert not clips[2].padded
    assert clips[6].padded
    assert str(clips[5]) == "expected a video, found none at all"


def test_loader_makes_batches_of_its_training_videos():
    loader = VideoLoader(ITEMS[:3], "ab", read, PREPROCESSING)
    batches = loader.train_batches(sampling="dense", batch_size=2, seed=0)
    assert len(batches) == 2
    assert sorted(i for batch in batches.epoch(3) for i in batch.indices) == [0, 1, 2]
    (batch,) = loader.eval_batches(ITEMS[2:5], clips=1, batch_size=8).epoch()
    assert (batch.indices, batch.labels.tolist(), batch.positions) == ([0, 2], [0, 0], [0, 2])
    assert batch.unreadable == {1: "no video"}
    assert loader.problems() == []


def test_class_balance_draws_rare_classes_more_often():
    items = [VideoItem(f"{i}.npy", "b" if i == 0 else "a") for i in (0, 1, 2, 4)]
    loader = VideoLoader(items, "ab", read, PREPROCESSING, class_balance=1.0)
    batches = loader.train_batches(sampling="dense", batch_size=4, seed=0)
    assert [sorted(batch.labels.tolist()) for batch in batches.epoch()] == [[0, 0, 1, 1]]


# Frames of another size


def test_frames_are_resized_to_the_format():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24, 3), dtype=np.uint8)
    resized = to_tensor(frames, (12, 10))
    assert (resized.shape, resized.dtype) == ((2, 3, 10, 12, 3), torch.uint8)
    means = frames.reshape(2, 3, 10, 2, 12, 2, 3).mean((3, 5))
    assert np.abs(resized.numpy() - means).mean() < 30  # antialiased: each pixel is about the mean of four
    assert np.array_equal(to_tensor(frames, (24, 20)), frames)


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 4, 8, 8, 3)), np.zeros((4, 8, 8, 3), np.uint8), np.zeros((1, 4, 3, 8, 8), np.uint8)]
)
def test_other_frames_are_refused(frames):
    with pytest.raises(UserError, match=r"expected uint8 frames V T H W 3 from read_clips, found \w+ of shape"):
        to_tensor(frames, (8, 8))
