"""Shards: decoded videos in tar archives, and `shards.json`, the index that says what is in each.

A sample KEY of an archive is KEY.frames (packed frames) and KEY.json (label, path, group, split). No frame is unpacked
here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from msfnet.data.dataset import ClipLoader
from msfnet.data.shards.location import absolute, error_line, local_folder, open_file, read_command
from msfnet.recipe import Data
from msfnet.types import FrameFormat, Frames, Preprocessing, UserError, VideoItem

INDEX, UNFINISHED = "shards.json", "unfinished.json"
FORMAT = 1
SPLIT_ORDER = ("train", "val", "test")

_NAME = re.compile(r"(train|val|test)-\d{6}\.tar")  # an index from elsewhere names no other file


@dataclass(frozen=True)
class Shard:
    """One archive: its samples in order. `first` is the number of its first sample among those of its split."""

    name: str
    size_bytes: int
    items: tuple[VideoItem, ...]
    first: int = 0

    def sample_keys(self) -> list[str]:
        """Return the keys of the samples in the archive."""
        split = self.name.partition("-")[0]
        return [sample_key(split, self.first + number) for number in range(len(self.items))]


@dataclass(frozen=True)
class Shards:
    """A dataset of shards: what `shards.json` says.

    Args:
        source: The folder or URL that the shards are in.
        fingerprint: A digest of the videos and the settings that the shards were written from.
        classes: The labels: position is class index.
        frame_format: The format of the frames.
        splits: The archives of each split.
        unreadable: Videos that are in no archive because they could not be read, each with the reason.
    """

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    frame_format: FrameFormat
    splits: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    unreadable: Mapping[VideoItem, str] = field(default_factory=dict)

    @property
    def items(self) -> tuple[VideoItem, ...]:
        """All videos, split after split."""
        return tuple(self.in_split(*SPLIT_ORDER))

    @property
    def location(self) -> str | None:
        """The folder or URL, independent of the working folder."""
        return absolute(self.source)

    def in_split(self, *names: str) -> list[VideoItem]:
        """Return the videos of these splits, those that could not be read last in each."""
        return [item for split in SPLIT_ORDER if split in names for item in self._split(split)]

    def _split(self, split: str) -> Iterator[VideoItem]:
        for shard in self.splits.get(split, ()):
            yield from shard.items
        yield from (item for item in self.unreadable if item.split == split)

    def describe(self) -> str:
        """Return one line: what there is and what is missing."""
        counts = {name: sum(len(shard.items) for shard in self.splits.get(name, ())) for name in SPLIT_ORDER}
        parts = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
        n_shards = sum(map(len, self.splits.values()))
        line = f"{sum(counts.values())} videos of {len(self.classes)} classes from {n_shards} shards ({parts})"
        if self.unreadable:
            line += f"; {len(self.unreadable)} videos could not be packed (first: {next(iter(self.unreadable)).path})"
        if command := read_command(self.source):
            line += f"; read by `{command}`"
        return line

    def resolve_splits(self, data: Data, seed: int) -> Shards:
        """Return the shards as they are: their split was made when they were written.

        Raises:
            UserError: `data` asks for another order than that of the shards.
        """
        if data.class_balance:
            raise UserError(
                f"expected data.class_balance of 0 with shards, found {data.class_balance:g}: they are read in their "
                "own order; train on the files, or with train.loss=class_weighted"
            )
        return self

    def rename_split(self, old: str, new: str) -> Shards:
        """Move all videos of split `old` to split `new`, which must have none."""
        assert not self.in_split(new)

        def renamed(item: VideoItem) -> VideoItem:
            return replace(item, split=new) if item.split == old else item

        moved = tuple(replace(shard, items=tuple(map(renamed, shard.items))) for shard in self.splits.get(old, ()))
        others = {name: shards for name, shards in self.splits.items() if name not in (old, new)}
        unreadable = {renamed(item): reason for item, reason in self.unreadable.items()}
        return replace(self, splits={**others, new: moved} if moved else others, unreadable=unreadable)

    def open(self, data: Data, preprocessing: Preprocessing) -> ClipLoader:
        """Get ready to read clips with as many worker processes as `data` names; it has nothing else that applies.

        Raises:
            UserError: The shards hold frames of another size or rate than the network's, or webdataset is missing.
        """
        from msfnet.data.shards.stream import ShardLoader  # here: torch takes seconds to import

        return ShardLoader(self, preprocessing, num_workers=data.num_workers)

    def thumbnails(self, paths: Sequence[str]) -> Mapping[str, Frames]:
        """Return thumbnails of the videos with these names. Shards behind a URL are not fetched again for them."""
        from msfnet.data.shards.stream import shard_thumbnails

        return shard_thumbnails(self, paths) if local_folder(self.source) else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `shards.json`."""
        numbers = {label: number for number, label in enumerate(self.classes)}
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            **asdict(self.frame_format),
            "splits": {name: [_shard_to_dict(s, numbers) for s in shards] for name, shards in self.splits.items()},
            "unreadable": [
                {"path": item.path.as_posix(), "label": item.label, "group": item.group, "split": item.split}
                | {"reason": reason}
                for item, reason in self.unreadable.items()
            ],
        }

    @classmethod
    def from_dict(cls, source: str, values: Mapping[str, Any]) -> Shards:
        """Make the shards of `source` from the content of `shards.json`.

        Raises:
            UserError: `msfnet shard` writes no such content.
        """
        if values.get("format") != FORMAT:
            raise UserError(
                f"expected shards of format {FORMAT} in {source}, found {values.get('format')!r}; "
                "write them again with msfnet shard"
            )
        try:
            classes = tuple(values["classes"])
            splits = {name: _shards_from_dicts(shards, name, classes) for name, shards in values["splits"].items()}
            unreadable = {
                VideoItem(Path(v["path"]), v["label"], v["split"], v["group"]): v["reason"]
                for v in values["unreadable"]
            }
            width, height = values["resize"]
            frame_format = FrameFormat((width, height), float(values["fps"]))
            return cls(source, values["fingerprint"], classes, frame_format, splits, unreadable)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{source}: {INDEX} is not one that msfnet shard writes ({type(error).__name__}: {error}); "
                "write the shards again"
            ) from error


def _shard_to_dict(shard: Shard, numbers: Mapping[str, int]) -> dict[str, Any]:
    videos = [[item.path.as_posix(), numbers[item.label], item.group] for item in shard.items]
    return {"name": shard.name, "samples": len(videos), "bytes": shard.size_bytes, "videos": videos}


def _shards_from_dicts(shards: Sequence[Mapping[str, Any]], split: str, classes: Sequence[str]) -> tuple[Shard, ...]:
    made: list[Shard] = []
    first = 0
    for values in shards:
        name, videos = values["name"], values["videos"]
        if not _NAME.fullmatch(name) or not name.startswith(f"{split}-"):
            raise ValueError(f"a shard of {split} is named {name!r}")
        if values["samples"] != len(videos):
            raise ValueError(f"{name} has {values['samples']} samples, {len(videos)} of them listed")
        items = tuple(VideoItem(Path(path), classes[number], split, group) for path, number, group in videos)
        made.append(Shard(name, values["bytes"], items, first))
        first += len(items)
    return tuple(made)


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def sample_key(split: str, number: int) -> str:
    """Return the key of a split's sample of that number: no dot in it, since WebDataset ends a key there."""
    return f"{split}-{number:08d}"


# Reading an index, here or behind a URL


def is_shards(data: str) -> bool:
    """Return whether `data` is a URL, or a folder that `msfnet shard` has written to."""
    folder = local_folder(data)
    return folder is None or (folder / INDEX).is_file() or (folder / UNFINISHED).is_file()


def read_shards(source: str) -> Shards:
    """Read the index of the shards in a folder or behind a URL; the size of those in a folder is checked.

    Raises:
        UserError: There is no index, it cannot be read, or a shard is missing or has another size.
    """
    folder = local_folder(source)
    if folder is not None and not (folder / INDEX).is_file():
        if (folder / UNFINISHED).is_file():
            raise UserError(f"the shards in {folder} are not finished; run the msfnet shard command again to resume it")
        raise UserError(f"expected shards, found no {INDEX} in {folder}; write them with msfnet shard")
    try:
        with closing(open_file(source, INDEX)) as file:
            values = json.loads(file.read())
    except UserError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(
            f"cannot read {INDEX} of {source}: {error_line(error)}; is it where msfnet shard wrote?"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: {INDEX} is not one that msfnet shard writes; write the shards again")
    shards = Shards.from_dict(source, values)
    if folder is not None:
        _check_sizes(folder, shards)
    return shards


def _check_sizes(folder: Path, index: Shards) -> None:
    for shard in (shard for shards in index.splits.values() for shard in shards):
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else 0
        if found != shard.size_bytes:
            raise UserError(
                f"{path}: expected {shard.size_bytes} bytes, found {found or 'no file'}; "
                "copy the shard again, or write all again with msfnet shard"
            )
