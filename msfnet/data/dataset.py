"""The interface of datasets to training, evaluation and export, and a base class for custom datasets.

A `Dataset` is a value: its videos with their labels and splits. `open` makes a `ClipLoader` of it, which reads clips as
a recipe specifies. `VideoFiles` and `Shards` are the datasets that `read_dataset` returns.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from msfnet.data.splits import resolve_splits
from msfnet.data.thumbnails import THUMBNAIL_FORMAT, side_by_side, thumbnail_sampler
from msfnet.recipe import Data
from msfnet.types import Clip, FrameFormat, Frames, FrameSampler, Preprocessing, VideoError, VideoItem

if TYPE_CHECKING:
    from msfnet.data.loading import Batches


class ClipLoader(Protocol):
    """Reads clips of a dataset as a recipe specifies, for this process of a run."""

    def train_batches(self, *, sampling: str, batch_size: int, seed: int) -> Batches:
        """Return batches of one random clip of each training video an epoch.

        Args:
            sampling: How a clip's frames are drawn: `clip.train_sampling` of a recipe.
            batch_size: Clips of a batch, over all processes of the run.
            seed: Seed of the order and of the clips.

        Raises:
            UserError: The dataset cannot be read in such batches.
        """

    def eval_batches(self, items: Sequence[VideoItem], *, clips: int, batch_size: int) -> Batches:
        """Return batches of `clips` fixed clips of each of these videos; indices are those of `items`.

        Args:
            items: Videos of the dataset.
            clips: How many clips of a video are read.
            batch_size: Videos of a batch, over all processes of the run, each of which reads its part.
        """

    def problems(self) -> list[str]:
        """Return the problems that are not of single videos, one line each."""


class Dataset(Protocol):
    """Labeled videos that a network can be trained, scored and exported on."""

    @property
    def items(self) -> tuple[VideoItem, ...]:
        """All videos, always in the same order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that have a video: position is class index."""

    @property
    def source(self) -> str:
        """Where the videos were found, for messages."""

    @property
    def location(self) -> str | None:
        """What `read_dataset` reads this dataset from again; None where the list of its files is enough."""

    @property
    def fingerprint(self) -> str:
        """A digest of the videos, their labels and splits: two datasets with the same one hold the same videos."""

    @property
    def unreadable(self) -> Mapping[VideoItem, str]:
        """Videos that are known to be unreadable before anything is read, each with the reason."""

    def describe(self) -> str:
        """Return one line: what was found and what is missing."""

    def in_split(self, *names: str) -> list[VideoItem]:
        """Return the videos of these splits, in the order of `items`."""

    def resolve_splits(self, data: Data, seed: int) -> Dataset:
        """Give every video a split, as the table `[data]` of a recipe says.

        Raises:
            UserError: The given split separates videos of one group, or the dataset cannot be read as `data` says.
        """

    def rename_split(self, old: str, new: str) -> Dataset:
        """Move all videos of split `old` to split `new`, which must have none."""

    def open(self, data: Data, preprocessing: Preprocessing) -> ClipLoader:
        """Get ready to read clips, with the decoder, cache and worker processes that `data` names.

        Raises:
            UserError: The decoder cannot start, or the dataset holds frames of another format.
        """

    def thumbnails(self, paths: Sequence[str]) -> Mapping[str, Frames]:
        """Return a thumbnail H W 3 for each readable video among these paths, which are those of `path_of`."""


class VideoDataset(ABC):
    """Base class of datasets whose videos are read one at a time. Only `read_clips` has to be implemented.

    Workers, order, batches and resuming come from msfnet, in training, evaluation and export.

    Args:
        items: The videos; `path` may be any name by which `read_clips` knows a video.
        source: Where they come from, for messages.
    """

    def __init__(self, items: Iterable[VideoItem], source: str = "a dataset in Python") -> None:
        self.items, self.source = tuple(items), source

    @abstractmethod
    def read_clips(self, item: VideoItem, sampler: FrameSampler, frame_format: FrameFormat) -> Clip:
        """Read frames of one video. Called in worker processes.

        Args:
            item: The video.
            sampler: Maps the number of frames of the video to the indices V T of the frames to read.
            frame_format: The requested frame rate (0: each frame of the video) and size of the frames. Frames
                of another size are scaled by the caller.

        Returns:
            The frames uint8 V T H W 3 that `sampler` chose, RGB, and how many frames the video has.

        Raises:
            VideoError: The video cannot be read.
        """

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the videos, sorted: position is class index."""
        return tuple(sorted({item.label for item in self.items}))

    @property
    def location(self) -> str | None:
        """None: a run that is resumed gets the dataset passed again."""
        return None

    @property
    def fingerprint(self) -> str:
        """A digest of the videos, their labels, splits and sizes."""
        return fingerprint(self.items)

    @property
    def unreadable(self) -> Mapping[VideoItem, str]:
        """Empty: which videos cannot be read is found when they are read."""
        return {}

    @property
    def official(self) -> bool:
        """Whether the split is a published one, which is kept even if it separates videos of one group."""
        return False

    def describe(self) -> str:
        """Return one line with the numbers of videos, of classes, and of videos in each split."""
        splits = Counter(item.split or "no split" for item in self.items)
        counts = ", ".join(f"{n} {name}" for name, n in splits.items())
        return f"{len(self.items)} videos of {len(self.classes)} classes from {self.source} ({counts})"

    def in_split(self, *names: str) -> list[VideoItem]:
        """Return the videos of these splits, in the order of `items`."""
        return [item for item in self.items if item.split in names]

    def with_items(self, items: Iterable[VideoItem]) -> Self:
        """Return the same dataset with these videos in place of its own."""
        changed = copy.copy(self)
        changed.items = tuple(items)
        return changed

    def resolve_splits(self, data: Data, seed: int) -> Self:
        """Return the dataset with a split for every video: see `Dataset`."""
        return self.with_items(resolve_splits(self.items, data, seed, official=self.official))

    def rename_split(self, old: str, new: str) -> Self:
        """Return the dataset with all videos of split `old` in split `new`, which must have none."""
        assert not self.in_split(new)
        return self.with_items(replace(item, split=new) if item.split == old else item for item in self.items)

    def open(self, data: Data, preprocessing: Preprocessing) -> ClipLoader:
        """Get ready to read clips in the worker processes that `data` asks for."""
        from msfnet.data.video_loader import VideoLoader  # here: torch takes seconds to import

        return VideoLoader(
            self.in_split("train"),
            self.classes,
            partial(self.read_clips, frame_format=preprocessing.frame_format),
            preprocessing,
            num_workers=data.num_workers,
            class_balance=data.class_balance,
        )

    def thumbnails(self, paths: Sequence[str]) -> Mapping[str, Frames]:
        """Return thumbnails H W 3 of the videos with these paths, for those that can be read."""
        wanted = set(paths)
        thumbnails = {}
        for path, item in ((path_of(item), item) for item in self.items):
            if path in wanted:
                try:
                    thumbnails[path] = side_by_side(
                        self.read_clips(item, thumbnail_sampler, THUMBNAIL_FORMAT).frames[0]
                    )
                except VideoError:  # the page does without
                    continue
        return thumbnails


def path_of(item: VideoItem) -> str:
    """Return how results name a video: by the absolute path of its file or, where there is none, by its name."""
    return str(item.path.resolve()) if item.path.exists() else item.path.as_posix()


def fingerprint(items: Iterable[VideoItem]) -> str:
    """Return the digest of the videos' names, labels, splits and sizes, in any order."""
    described = sorted(f"{item.label}/{item.path.name} {item.split} {size_bytes(item.path)}" for item in items)
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def size_bytes(path: Path) -> int:
    """Return the size of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
