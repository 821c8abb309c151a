"""The videos of a run, split and readable: files through the frame cache, or shards. Knows no network and no folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

from msfnet import distributed
from msfnet.data.annotations.readers import Listing
from msfnet.data.dataset import InOrder, ScoredVideos, TrainingVideos, Turns, make_batches, open_reader
from msfnet.data.loading import Batches
from msfnet.data.sampling import balanced_order
from msfnet.data.shards.index import ShardIndex
from msfnet.data.shards.stream import ScoredShards, TrainingShards, make_shard_batches
from msfnet.data.video.decoders import Reader
from msfnet.recipe import Recipe
from msfnet.types import Say, VideoItem

BatchesOf = tuple[Batches, Batches | None]  # training and validation videos


@dataclass(frozen=True)
class RunVideos:
    """What a run learns from and is scored on, in the splits that it began with."""

    recipe: Recipe
    classes: tuple[str, ...]
    parts: dict[str, list[VideoItem]]  # train, val, test
    reader: Reader | None  # None: they are in shards
    shards: ShardIndex | None

    @classmethod
    def of(cls, listing: Listing, shards: ShardIndex | None, recipe: Recipe, say: Say) -> RunVideos:
        """`listing` has a split for every video; `shards` hold them, or else they are files."""
        parts = {name: listing.in_split(name) for name in ("train", "val", "test")}
        reader = None if shards else open_reader(recipe.data, recipe.preprocessing(), listing.items, say)
        return cls(recipe, listing.classes, parts, reader, shards)

    def batches(self, say: Say) -> BatchesOf:
        """To train on, one random clip of each video an epoch, and to choose the best epoch by: for this process."""
        return self._of_shards(self.shards, say) if self.shards else self._of_files(say)

    def class_counts(self) -> list[int]:
        """Training videos of each class, in the order of `classes`."""
        labels = Counter(item.label for item in self.parts["train"])
        return [labels[label] for label in self.classes]

    def unpacked(self) -> dict[int, str]:
        """Training videos that the shards list as unreadable: number -> reason."""
        if not self.shards:
            return {}
        n_packed = sum(len(shard.items) for shard in self.shards.shards("train"))
        return dict(enumerate(self.shards.reasons("train"), n_packed))

    def _of_files(self, say: Say) -> BatchesOf:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        videos = TrainingVideos(
            self.parts["train"],
            self.classes,
            preprocessing,
            self.reader,
            sampling=data.train_sampling,
            temporal_jitter=data.temporal_jitter,
        )
        own = distributed.rank(), distributed.count()
        draw = partial(balanced_order, videos.labels, data.balance) if data.balance else None
        turns = Turns(len(videos), train.batch, train.seed, *own, draw=draw)
        batches = make_batches(videos, turns, data.workers, say)
        if not self.parts["val"]:
            return batches, None
        val_videos = ScoredVideos(self.parts["val"], self.classes, preprocessing, self.reader, clips=1)
        return batches, make_batches(val_videos, InOrder(len(val_videos), train.batch, *own), data.workers, say)

    def _of_shards(self, shards: ShardIndex, say: Say) -> BatchesOf:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        own = {"batch": train.batch // distributed.count(), "rank": distributed.rank(), "ranks": distributed.count()}
        videos = TrainingShards(
            shards,
            "train",
            self.classes,
            preprocessing,
            sampling=data.train_sampling,
            temporal_jitter=data.temporal_jitter,
            seed=train.seed,
            **own,
        )
        batches = make_shard_batches(videos, data.workers, say)
        if not self.parts["val"]:
            return batches, None
        val_videos = ScoredShards(shards, "val", self.classes, preprocessing, clips=1, **own)
        return batches, make_shard_batches(val_videos, data.workers, say)
