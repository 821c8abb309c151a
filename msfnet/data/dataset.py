"""Videos as torch data sets: each item is the frames of one video, or the reason why there are none.

Workers hand over uint8 frames; crops, flips and normalization are done in batches where the network is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msfnet.data.cache.frame_cache import FrameCache, choose_codec, default_folder, describe, estimate_raw_bytes
from msfnet.data.loading import Batches
from msfnet.data.sampling import eval_clips, train_sampler
from msfnet.data.video import decode_torchcodec
from msfnet.data.video.decode import Plan
from msfnet.data.video.decoders import DirectReader, Reader
from msfnet.recipe import Data
from msfnet.types import Indices, Ints, Preprocessing, UserError, VideoError, VideoItem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One video's turn: `frames` V T H W 3, or None and the `error`."""

    index: int
    label: int
    frames: Tensor | None
    error: str | None = None
    padded: bool = False  # shorter than the clip
    warning: str | None = None  # damaged, but read in part
    read_seconds: float = 0.0  # what finding, decoding and resizing its frames took


def open_reader(data: Data, preprocessing: Preprocessing, items: Sequence[VideoItem]) -> Reader:
    """The decoder and cache that a recipe asks for, for a run on `items`; says what will be kept, and what is wrong.

    Raises UserError when the recipe names a folder that is none or a decoder that cannot start.
    """
    if data.decoder != "pyav":
        decode_torchcodec.require(cuda=data.decoder == "torchcodec-cuda", workers=data.num_workers)
    if data.cache == "off":
        return DirectReader(preprocessing.frame_format, data.decoder)
    folder = default_folder() if data.cache == "auto" else Path(data.cache)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"expected a folder for the cache, found the file {folder}; name another or data.cache=off")
    budget_bytes, paths = int(data.cache_gib * 2**30), sorted({item.path for item in items})
    raw_bytes = estimate_raw_bytes(paths, preprocessing.frame_format)
    codec = choose_codec(data.cache_codec, raw_bytes, budget_bytes)
    cache = FrameCache(folder, preprocessing.frame_format, budget_bytes, codec, data.decoder)
    log.info(describe(len(paths), raw_bytes, codec, budget_bytes))
    for line in cache.problems():
        log.info(line)
    return cache


class _Videos(Dataset[Sample]):
    """What both data sets share: reading one video as a plan says, errors caught."""

    def __init__(
        self,
        items: Sequence[VideoItem],
        classes: Sequence[str],
        preprocessing: Preprocessing,
        reader: Reader | None = None,
    ) -> None:
        self.items = list(items)
        self.labels = [classes.index(item.label) if item.label in classes else -1 for item in items]
        self.preprocessing = preprocessing
        self.reader = reader or DirectReader(preprocessing.frame_format)

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int, plan: Plan) -> Sample:
        label, started = self.labels[index], time.perf_counter()
        try:
            clip = self.reader.read_clips(self.items[index].path, plan)
        except VideoError as error:
            return Sample(index, label, None, str(error), read_seconds=time.perf_counter() - started)
        frames = torch.from_numpy(np.ascontiguousarray(clip.frames))
        seconds = time.perf_counter() - started
        return Sample(index, label, frames, padded=clip.padded, warning=clip.warning, read_seconds=seconds)


class TrainVideos(_Videos):
    """One random clip of a video at each turn. Indexed by (index, seed), so that a turn can be repeated exactly."""

    def __init__(self, *args: Any, sampling: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = train_sampler(sampling, self.preprocessing.frame_interval)

    def __getitem__(self, turn: tuple[int, int]) -> Sample:
        index, seed = turn

        def plan(video_frames: int) -> Indices:
            return self.sampler(video_frames, self.preprocessing.read_frames, np.random.default_rng(seed))[None]

        return self.read(index, plan)


class EvalVideos(_Videos):
    """The clips that a video is scored by, always the same."""

    def __init__(self, *args: Any, clips: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clips = clips

    def __getitem__(self, index: int) -> Sample:
        return self.read(index, partial(eval_clips, self.preprocessing, self.clips))


class _Order:
    """The batches of an epoch for one of `ranks` processes, from the batch that it was told to go to.

    A batch is every process's clips of one step: each takes the turns at its rank, and every `ranks`-th after it. The
    last batch may be short, and have turns for some processes only.
    """

    def __init__(self, n_videos: int, batch: int, rank: int = 0, ranks: int = 1) -> None:
        self.n_videos, self.batch, self.rank, self.ranks = n_videos, batch, rank, ranks
        self.epoch, self.done = 0, 0

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """To an epoch, of which so many batches are done."""
        self.epoch, self.done = epoch, done

    def batches(self) -> int:
        """How many an epoch has."""
        return -(-self.n_videos // self.batch)

    def __len__(self) -> int:
        return self.batches() - self.done

    def __iter__(self) -> Iterator[list[Any]]:
        turns = self._turns()
        for start in range(self.done * self.batch, self.n_videos, self.batch):
            yield turns[start : start + self.batch][self.rank :: self.ranks]

    def _turns(self) -> list[Any]:
        return list(range(self.n_videos))


class EvalSampler(_Order):
    """Every video once, by its number, for scoring."""


class Turns(_Order):
    """Training: (index, seed of the clip) in an order that is a pure function of seed and epoch.

    Every video has one turn, or `draw` says which have, in as many turns as there are videos.
    """

    def __init__(
        self,
        n_videos: int,
        batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        *,
        draw: Callable[[np.random.Generator], Ints] | None = None,
    ) -> None:
        super().__init__(n_videos, batch, rank, ranks)
        self.seed, self.draw = seed, draw

    def _turns(self) -> list[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self.draw(rng) if self.draw else rng.permutation(self.n_videos)
        seeds = rng.integers(0, 2**31, self.n_videos)
        return list(zip(order.tolist(), seeds.tolist(), strict=True))


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """A batch of the samples that were read: clips N V T H W 3 (None when there is none), labels N, indices N.

    `places` holds the place that each of these had in the whole batch, before it lost those that could not be read.
    `failures` holds (index, reason) of the others, `warnings` the same of damaged videos that were read in part,
    `repeated` the indices of videos shorter than the clip, `read_seconds` what reading all of them took.
    """
    good = [s for s in samples if s.frames is not None]
    return {
        "clips": torch.stack([s.frames for s in good if s.frames is not None]) if good else None,
        "labels": torch.tensor([s.label for s in good], dtype=torch.int64),
        "indices": [s.index for s in good],
        "places": [place for place, s in enumerate(samples) if s.frames is not None],
        "failures": [(s.index, s.error) for s in samples if s.frames is None],
        "warnings": [(s.index, s.warning) for s in good if s.warning],
        "padded": [s.index for s in good if s.padded],
        "read_seconds": sum(s.read_seconds for s in samples),
    }


def make_batches(videos: _Videos, order: _Order, workers: int) -> Batches:
    """Batches of `videos` in an order, read by `workers` processes of one thread each that live as long as these."""

    def make() -> DataLoader[Any]:
        return DataLoader(
            videos,
            batch_sampler=order,
            num_workers=min(workers, len(videos)),
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    return Batches(make, order.set_epoch, order.batches())
