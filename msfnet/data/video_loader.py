"""Clips of videos that are read one at a time, in any order: the order of an epoch, the reading, and the batches.

How a video is read is a function that is passed in. Shards, which are read from start to end, have `shards.stream`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from msfnet import distributed
from msfnet.data.loading import Batches, Sample, collate
from msfnet.data.sampling import balanced_order, eval_clips, is_short, train_clip_sampler
from msfnet.types import Clip, Frames, FrameSampler, Indices, Ints, Preprocessing, UserError, VideoError, VideoItem

ReadClips = Callable[[VideoItem, FrameSampler], Clip]


class VideoLoader:
    """Batches of clips of videos, for this process of a run.

    Args:
        train_items: The videos to train on.
        classes: The labels in the order of their class indices.
        read: Reads the frames that a sampler chooses of a video: V T H W 3.
        preprocessing: The network's preprocessing.
        num_workers: Processes that read videos; with 0 this process reads them.
        class_balance: How far rare classes are shown more often: 0 not at all, 1 as often as the others.
        problems: Returns the problems that are not of single videos, one line each.
    """

    def __init__(
        self,
        train_items: Sequence[VideoItem],
        classes: Sequence[str],
        read: ReadClips,
        preprocessing: Preprocessing,
        *,
        num_workers: int = 0,
        class_balance: float = 0.0,
        problems: Callable[[], list[str]] = list,
    ) -> None:
        self.train_items, self.classes, self.read, self.preprocessing = train_items, classes, read, preprocessing
        self.num_workers, self.class_balance, self.problems = num_workers, class_balance, problems

    def train_batches(self, *, sampling: str, batch_size: int, seed: int) -> Batches:
        """See `msfnet.data.dataset.ClipLoader`."""
        videos = TrainClips(self.train_items, self.classes, self.read, self.preprocessing, sampling)
        draw = partial(balanced_order, videos.labels, self.class_balance) if self.class_balance else None
        own = distributed.rank(), distributed.world_size()
        return make_batches(videos, TrainSampler(len(videos), batch_size, seed, *own, draw=draw), self.num_workers)

    def eval_batches(self, items: Sequence[VideoItem], *, clips: int, batch_size: int) -> Batches:
        """See `msfnet.data.dataset.ClipLoader`."""
        videos = EvalClips(items, self.classes, self.read, self.preprocessing, clips)
        own = distributed.rank(), distributed.world_size()
        return make_batches(videos, EvalSampler(len(videos), batch_size, *own), self.num_workers)


# Order


class _BatchSampler:
    """The batches of an epoch for one of `ranks` processes.

    A batch holds the clips of every process: each takes those at its rank and every `ranks`-th after it. The last batch
    may be short, and hold clips of some processes only.
    """

    def __init__(self, n_videos: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.n_videos, self.batch_size, self.rank, self.ranks = n_videos, batch_size, rank, ranks
        self.epoch, self.start_batch = 0, 0

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that is iterated over next, and its first batch."""
        self.epoch, self.start_batch = epoch, start_batch

    def n_batches(self) -> int:
        """Count the batches of a whole epoch."""
        return -(-self.n_videos // self.batch_size)

    def __len__(self) -> int:
        return self.n_batches() - self.start_batch

    def __iter__(self) -> Iterator[list[Any]]:
        order = self._order()
        for start in range(self.start_batch * self.batch_size, self.n_videos, self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.ranks]

    def _order(self) -> list[Any]:
        return list(range(self.n_videos))


class EvalSampler(_BatchSampler):
    """Yields the number of every video once, in order."""


class TrainSampler(_BatchSampler):
    """Yields (video, seed of its clip) in an order that is a pure function of seed and epoch.

    Args:
        n_videos: How many videos there are; an epoch has as many clips.
        batch_size: Clips of a batch, over all processes.
        seed: Seed of the order and of the clips' seeds.
        rank: The number of this process.
        ranks: How many processes there are.
        draw: Draws the videos of an epoch, N of N; by default a permutation.
    """

    def __init__(
        self,
        n_videos: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        *,
        draw: Callable[[np.random.Generator], Ints] | None = None,
    ) -> None:
        super().__init__(n_videos, batch_size, rank, ranks)
        self.seed, self.draw = seed, draw

    def _order(self) -> list[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self.draw(rng) if self.draw else rng.permutation(self.n_videos)
        seeds = rng.integers(0, 2**31, self.n_videos)
        return list(zip(order.tolist(), seeds.tolist(), strict=True))


# Reading


class _Clips(TorchDataset["Sample | UserError"]):
    """Reads the clips of one video at a time; a video that cannot be read gives a sample with the reason."""

    def __init__(
        self, items: Sequence[VideoItem], classes: Sequence[str], read: ReadClips, preprocessing: Preprocessing
    ) -> None:
        numbers = {label: number for number, label in enumerate(classes)}
        self.items, self.labels = list(items), [numbers[item.label] for item in items]
        self.read, self.preprocessing = read, preprocessing

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int, sampler: FrameSampler) -> Sample | UserError:
        label, started = self.labels[index], time.perf_counter()
        try:
            clip = self.read(self.items[index], sampler)
            frames = to_tensor(clip.frames, self.preprocessing.resize)
        except VideoError as error:
            return Sample(index, label, None, str(error), read_seconds=time.perf_counter() - started)
        except UserError as error:
            return error
        padded = clip.padded or is_short(clip.video_frames, frames.shape[1])
        seconds = time.perf_counter() - started
        return Sample(index, label, frames, padded=padded, warning=clip.warning, read_seconds=seconds)


class TrainClips(_Clips):
    """One random clip of a video. Its index is (video, seed), so that the same clip can be read again."""

    def __init__(
        self,
        items: Sequence[VideoItem],
        classes: Sequence[str],
        read: ReadClips,
        preprocessing: Preprocessing,
        sampling: str,
    ) -> None:
        super().__init__(items, classes, read, preprocessing)
        self.draw_frames = train_clip_sampler(sampling, preprocessing.frame_interval)

    def __getitem__(self, index: tuple[int, int]) -> Sample | UserError:
        number, seed = index

        def sampler(video_frames: int) -> Indices:
            return self.draw_frames(video_frames, self.preprocessing.read_frames, np.random.default_rng(seed))[None]

        return self.sample(number, sampler)


class EvalClips(_Clips):
    """The clips that a video is scored by, always the same."""

    def __init__(
        self,
        items: Sequence[VideoItem],
        classes: Sequence[str],
        read: ReadClips,
        preprocessing: Preprocessing,
        clips: int,
    ) -> None:
        super().__init__(items, classes, read, preprocessing)
        self.clips = clips

    def __getitem__(self, index: int) -> Sample | UserError:
        return self.sample(index, partial(eval_clips, self.preprocessing, self.clips))


def to_tensor(frames: Frames, resize: tuple[int, int]) -> Tensor:
    """Check the frames V T H W 3 of a video and scale them to (width, height) `resize` where they have another size.

    Raises:
        UserError: They are not uint8, or not of that shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise UserError(
            f"expected uint8 frames V T H W 3 from read_clips, found {frames.dtype} of shape {frames.shape}"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(frames))
    size = resize[1], resize[0]
    if tensor.shape[2:4] == size:
        return tensor
    channels_first = tensor.flatten(0, 1).permute(0, 3, 1, 2)  # V T H W 3 -> V*T 3 H W
    scaled = F.interpolate(channels_first, size=size, mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).unflatten(0, tensor.shape[:2]).contiguous()


def make_batches(videos: _Clips, sampler: _BatchSampler, num_workers: int) -> Batches:
    """Return batches of `videos`, read by `num_workers` processes that live as long as these."""
    num_workers = min(num_workers, len(videos))
    loader = DataLoader(
        videos,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return Batches(loader, sampler.set_epoch, sampler.n_batches())
