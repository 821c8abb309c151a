"""The videos of a run, split and readable: files through the frame cache, or shards. Knows no network and no folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from msfnet.data.dataset import ScoredVideos, TrainingVideos, Turns, make_loader, open_reader
from msfnet.data.listing.annotations import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.data.shards.stream import ScoredShards, TrainingShards, make_shard_loader
from msfnet.data.video.decoders import Reader
from msfnet.recipe import Recipe
from msfnet.types import VideoItem

Loaders = tuple[DataLoader[Any], DataLoader[Any] | None]  # of training and of validation videos


@dataclass(frozen=True)
class RunVideos:
    """What a run learns from and is scored on, in the splits that it began with."""

    recipe: Recipe
    classes: tuple[str, ...]
    parts: dict[str, list[VideoItem]]  # train, val, test
    reader: Reader | None  # None: they are in shards
    shards: ShardIndex | None

    @classmethod
    def of(cls, listing: Listing, shards: ShardIndex | None, recipe: Recipe, say: Callable[[str], None]) -> RunVideos:
        """`listing` has a split for every video; `shards` hold them, or else they are files."""
        parts = {name: listing.in_split(name) for name in ("train", "val", "test")}
        reader = None if shards else open_reader(recipe.data, recipe.preprocessing(), listing.items, say)
        return cls(recipe, listing.classes, parts, reader, shards)

    def loaders(self) -> Loaders:
        """Batches to train on, one random clip of each video an epoch, and batches to choose the best epoch by."""
        return self._shard_loaders(self.shards) if self.shards else self._file_loaders()

    def unpacked(self) -> dict[int, str]:
        """Training videos that the shards list as unreadable: number -> reason."""
        if not self.shards:
            return {}
        n_packed = sum(len(shard.items) for shard in self.shards.shards("train"))
        return dict(enumerate(self.shards.reasons("train"), n_packed))

    def _file_loaders(self) -> Loaders:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        videos = TrainingVideos(
            self.parts["train"],
            self.classes,
            preprocessing,
            self.reader,
            sampling=data.train_sampling,
            temporal_jitter=data.temporal_jitter,
        )
        train_loader = make_loader(videos, train.batch, data.workers, Turns(len(videos), train.seed))
        if not self.parts["val"]:
            return train_loader, None
        val_videos = ScoredVideos(self.parts["val"], self.classes, preprocessing, self.reader, clips=1)
        return train_loader, make_loader(val_videos, train.batch, data.workers)

    def _shard_loaders(self, shards: ShardIndex) -> Loaders:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        videos = TrainingShards(
            shards,
            "train",
            self.classes,
            preprocessing,
            batch=train.batch,
            sampling=data.train_sampling,
            temporal_jitter=data.temporal_jitter,
            seed=train.seed,
        )
        train_loader = make_shard_loader(videos, data.workers)
        if not self.parts["val"]:
            return train_loader, None
        val_videos = ScoredShards(shards, "val", self.classes, preprocessing, batch=train.batch, clips=1)
        return train_loader, make_shard_loader(val_videos, data.workers)
