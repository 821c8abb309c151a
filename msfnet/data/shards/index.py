"""Shards: decoded videos in tar archives, and `shards.json`, the index that says what is in each.

A sample KEY of an archive is KEY.frames (packed frames) and KEY.json (label, path, group, split). The folder may lie on
this machine or behind a URL. Knows where the bytes are and what they should be; no frame is unpacked here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname, urlopen

from msfnet.data.annotations.readers import Listing
from msfnet.types import FrameFormat, UserError, VideoItem

INDEX, UNFINISHED = "shards.json", "unfinished.json"
FORMAT = 1
SPLIT_ORDER = ("train", "val", "test")
S3_COMMAND = "aws s3 cp {url} -"  # MSFNET_S3_COMMAND names another
STALL_SECONDS = 60  # a web server that says nothing for so long has gone

_NAME = re.compile(r"(train|val|test)-\d{6}\.tar")  # an index from elsewhere names no other file


@dataclass(frozen=True)
class Shard:
    """One archive: its samples in order."""

    name: str
    size_bytes: int
    items: tuple[VideoItem, ...]


@dataclass(frozen=True)
class ShardIndex:
    """What `shards.json` says. `source` is the folder or URL, `fingerprint` that of the videos and settings."""

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    frame_format: FrameFormat
    splits: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    failed: tuple[tuple[VideoItem, str], ...] = ()  # videos that are in no shard, each with the reason

    def shards(self, split: str) -> tuple[Shard, ...]:
        return self.splits.get(split, ())

    def items(self, split: str) -> list[VideoItem]:
        """The videos of a split: position is the number of the sample; those that failed come last."""
        packed = [item for shard in self.shards(split) for item in shard.items]
        return packed + [item for item, _ in self.failed if item.split == split]

    def reasons(self, split: str) -> list[str]:
        """Why each failed video of a split is in no shard, in the order of `items`."""
        return [reason for item, reason in self.failed if item.split == split]

    def listing(self) -> Listing:
        """All videos, each split in the order of `items`."""
        return Listing(tuple(item for split in SPLIT_ORDER for item in self.items(split)), "shards")

    def describe(self) -> str:
        """One line: what there is and what is missing."""
        counted = Counter({name: sum(len(shard.items) for shard in shards) for name, shards in self.splits.items()})
        parts = ", ".join(f"{counted[name]} {name}" for name in SPLIT_ORDER if counted[name])
        n_shards = sum(map(len, self.splits.values()))
        line = f"{counted.total()} videos of {len(self.classes)} classes from {n_shards} shards ({parts})"
        if self.failed:
            line += f"; {len(self.failed)} videos could not be packed (first: {self.failed[0][0].path})"
        if urlsplit(self.source).scheme == "s3":
            line += f"; read by `{_s3_command()}`"
        return line

    def to_dict(self) -> dict[str, Any]:
        numbers = {label: number for number, label in enumerate(self.classes)}
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            **asdict(self.frame_format),
            "splits": {name: [_shard_to_dict(s, numbers) for s in shards] for name, shards in self.splits.items()},
            "failed": [
                {"path": item.path.as_posix(), "label": item.label, "group": item.group, "split": item.split}
                | {"reason": reason}
                for item, reason in self.failed
            ],
        }

    @classmethod
    def from_dict(cls, source: str, values: Mapping[str, Any]) -> ShardIndex:
        """The inverse of `to_dict`. Raises UserError for anything else."""
        if values.get("format") != FORMAT:
            raise UserError(
                f"expected shards of format {FORMAT} in {source}, found {values.get('format')!r}; "
                "write them again with msfnet shard"
            )
        try:
            classes = tuple(values["classes"])
            splits = {
                name: tuple(_shard_from_dict(shard, name, classes) for shard in shards)
                for name, shards in values["splits"].items()
            }
            failed = tuple(
                (VideoItem(Path(v["path"]), v["label"], v["split"], v["group"]), v["reason"]) for v in values["failed"]
            )
            width, height = values["resize"]
            frame_format = FrameFormat((width, height), float(values.get("fps", 0)))  # older shards have every frame
            return cls(source, values["fingerprint"], classes, frame_format, splits, failed)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{source}: {INDEX} is not one that msfnet shard writes ({type(error).__name__}: {error}); "
                "write the shards again"
            ) from error


def _shard_to_dict(shard: Shard, numbers: Mapping[str, int]) -> dict[str, Any]:
    videos = [[item.path.as_posix(), numbers[item.label], item.group] for item in shard.items]
    return {"name": shard.name, "samples": len(videos), "bytes": shard.size_bytes, "videos": videos}


def _shard_from_dict(values: Mapping[str, Any], split: str, classes: tuple[str, ...]) -> Shard:
    name, videos = values["name"], values["videos"]
    if not _NAME.fullmatch(name) or not name.startswith(f"{split}-"):
        raise ValueError(f"a shard of {split} is named {name!r}")
    if values["samples"] != len(videos):
        raise ValueError(f"{name} has {values['samples']} samples, {len(videos)} of them listed")
    return Shard(name, values["bytes"], tuple(VideoItem(Path(p), classes[n], split, group) for p, n, group in videos))


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def sample_key(split: str, number: int) -> str:
    """The key of a split's sample of that number: no dot in it, since WebDataset ends a key there."""
    return f"{split}-{number:08d}"


# Reading an index, here or behind a URL


def is_shards(data: str) -> bool:
    """Whether `data` is a URL, or a folder that `msfnet shard` has written to."""
    folder = local_folder(data)
    return folder is None or (folder / INDEX).is_file() or (folder / UNFINISHED).is_file()


def read_shards(source: str) -> ShardIndex:
    """The index of the shards in a folder or behind a URL; those in a folder are checked to be whole.

    Raises UserError when there is no index, when it cannot be read, or when a shard lacks or has another size.
    """
    folder = local_folder(source)
    if folder is not None and not (folder / INDEX).is_file():
        if (folder / UNFINISHED).is_file():
            raise UserError(f"the shards in {folder} are not finished; go on with the msfnet shard that began them")
        raise UserError(f"expected shards, found no {INDEX} in {folder}; write them with msfnet shard")
    try:
        with open_file(source, INDEX) as file:
            values = json.loads(file.read())
    except UserError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"cannot read {INDEX} of {source}: {reason(error)}; is it where msfnet shard wrote?") from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: {INDEX} is not one that msfnet shard writes; write the shards again")
    index = ShardIndex.from_dict(source, values)
    if folder is not None:
        _check_sizes(folder, index)
    return index


def _check_sizes(folder: Path, index: ShardIndex) -> None:
    for shard in (shard for shards in index.splits.values() for shard in shards):
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else 0
        if found != shard.size_bytes:
            raise UserError(
                f"{path}: expected {shard.size_bytes} bytes, found {found or 'no file'}; "
                "copy the shard again, or write all again with msfnet shard"
            )


def local_folder(source: str) -> Path | None:
    """The folder that a path or a file: URL names; None for what lies elsewhere."""
    if "://" not in source and not source.startswith("file:"):
        return Path(source)
    parts = urlsplit(source)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def absolute(source: str) -> str:
    """The same place, from whatever folder it is named."""
    folder = local_folder(source)
    return str(folder.resolve()) if folder is not None else source


def locate(source: str, name: str) -> str:
    """Where a file of the shards lies: a path, or a URL that keeps the query of the source's."""
    folder = local_folder(source)
    if folder is not None:
        return str(folder / name)
    parts = urlsplit(source)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def open_file(source: str, name: str) -> BinaryIO:
    """A file of the shards, to read from start to end: a path, file:, http(s): or s3:.

    Raises OSError when it cannot be opened, UserError when there is no way to.
    """
    where = locate(source, name)
    if local_folder(source) is not None:
        return Path(where).open("rb")
    scheme = urlsplit(where).scheme
    if scheme in ("http", "https"):
        file: BinaryIO = urlopen(where, timeout=STALL_SECONDS)
        return file
    if scheme == "s3":
        piped: BinaryIO = webdataset().gopen("pipe:" + _s3_command().replace("{url}", _quoted(where)))
        return piped
    raise UserError(f"expected a folder or a URL with http, https, s3 or file, found {source}")


def _s3_command() -> str:
    command = os.environ.get("MSFNET_S3_COMMAND", S3_COMMAND)
    if "{url}" not in command:
        raise UserError(f"expected {{url}} in MSFNET_S3_COMMAND, as in {S3_COMMAND!r}, found {command!r}")
    return command


def _quoted(url: str) -> str:
    return subprocess.list2cmdline([url]) if os.name == "nt" else shlex.quote(url)


def webdataset() -> ModuleType:
    """The library, or a UserError that says how to install it."""
    try:
        import webdataset
    except ImportError as error:
        raise UserError("shards are read by webdataset, which is not there: pip install 'msfnet[shards]'") from error
    return webdataset


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, URLError) and not isinstance(error.reason, str):
        return f"{error.reason}"
    if ended := re.match(r"\(\('(.*)',\), .*\): exit (\d+)", str(error)):  # how WebDataset says it of a command
        return f"the command {ended[1]} ended with exit code {ended[2]}"
    return " ".join(str(error).split()) or type(error).__name__
