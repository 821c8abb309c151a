"""The videos of a run, split and readable: files through the frame cache, or shards. Knows no network and no folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

from msfnet import distributed
from msfnet.data.annotations.readers import Listing
from msfnet.data.dataset import EvalSampler, EvalVideos, TrainVideos, Turns, make_batches, open_reader
from msfnet.data.loading import Batches
from msfnet.data.sampling import balanced_order
from msfnet.data.shards.index import ShardIndex
from msfnet.data.shards.stream import EvalShards, TrainShards, make_shard_batches
from msfnet.data.video.decoders import Reader
from msfnet.recipe import Recipe
from msfnet.types import VideoItem

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
    def of(cls, listing: Listing, shards: ShardIndex | None, recipe: Recipe) -> RunVideos:
        """`listing` has a split for every video; `shards` hold them, or else they are files."""
        parts = {name: listing.in_split(name) for name in ("train", "val", "test")}
        reader = None if shards else open_reader(recipe.data, recipe.preprocessing(), listing.items)
        return cls(recipe, listing.classes, parts, reader, shards)

    def batches(self) -> BatchesOf:
        """To train on, one random clip of each video an epoch, and to choose the best epoch by: for this process."""
        return self._of_shards(self.shards) if self.shards else self._of_files()

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

    def _of_files(self) -> BatchesOf:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        videos = TrainVideos(
            self.parts["train"],
            self.classes,
            preprocessing,
            self.reader,
            sampling=self.recipe.clip.train_sampling,
        )
        own = distributed.rank(), distributed.count()
        draw = partial(balanced_order, videos.labels, data.class_balance) if data.class_balance else None
        turns = Turns(len(videos), train.batch_size, train.seed, *own, draw=draw)
        batches = make_batches(videos, turns, data.num_workers)
        if not self.parts["val"]:
            return batches, None
        val_videos = EvalVideos(self.parts["val"], self.classes, preprocessing, self.reader, clips=1)
        return batches, make_batches(val_videos, EvalSampler(len(val_videos), train.batch_size, *own), data.num_workers)

    def _of_shards(self, shards: ShardIndex) -> BatchesOf:
        data, preprocessing, train = self.recipe.data, self.recipe.preprocessing(), self.recipe.train
        own = {
            "batch": train.batch_size // distributed.count(),
            "rank": distributed.rank(),
            "ranks": distributed.count(),
        }
        videos = TrainShards(
            shards,
            "train",
            self.classes,
            preprocessing,
            sampling=self.recipe.clip.train_sampling,
            seed=train.seed,
            **own,
        )
        batches = make_shard_batches(videos, data.num_workers)
        if not self.parts["val"]:
            return batches, None
        val_videos = EvalShards(shards, "val", self.classes, preprocessing, clips=1, **own)
        return batches, make_shard_batches(val_videos, data.num_workers)
