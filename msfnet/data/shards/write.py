"""A data set to shards: each video is decoded once, resized, packed and put into an archive, in random order.

Archives are written one after the other under temporary names; `unfinished.json` says after each what is done, and
`shards.json` comes last. What was interrupted goes on after the last whole archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np

from msfnet.atomic_io import atomic_write, write_text
from msfnet.data.cache.packed import pack
from msfnet.data.dataset import size_bytes
from msfnet.data.shards.index import (
    FORMAT,
    INDEX,
    SPLIT_ORDER,
    UNFINISHED,
    Shard,
    Shards,
    sample_key,
    shard_name,
)
from msfnet.data.video.decode import read_video
from msfnet.data.video_files import VideoFiles
from msfnet.recipe import Recipe
from msfnet.types import FrameFormat, UserError, VideoError, VideoItem

log = logging.getLogger(__name__)

Packed = bytes | str  # an entry, or why there is none

CODEC = "jpeg"
TELL_SECONDS = 10


@dataclass(frozen=True)
class _Job:
    """All that decides what the shards will hold. `queue` is every video with its split, in the order of writing."""

    root: Path
    out: Path
    queue: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    frame_format: FrameFormat
    shard_bytes: int

    def listed(self, item: VideoItem) -> VideoItem:
        """The item under its name in the data set, whichever machine that lies on."""
        path = item.path
        return replace(item, path=path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def fingerprint(self) -> str:
        videos = [
            (listed.path.as_posix(), listed.label, listed.split, listed.group, size_bytes(item.path))
            for item, listed in zip(self.queue, map(self.listed, self.queue), strict=True)
        ]
        settings = (FORMAT, CODEC, *self.frame_format.key, self.shard_bytes)
        return hashlib.sha256(json.dumps([settings, videos]).encode()).hexdigest()


def write_shards(files: VideoFiles, recipe: Recipe, data: Path, out: Path, *, shard_bytes: int) -> Shards:
    """Write the videos of a data set, found at `data`, as shards into `out`; goes on with what was begun there.

    An archive is closed when it has reached `shard_bytes`. Videos that cannot be read are in no archive, but are
    named in the index.

    Raises UserError when `out` holds shards of other videos or settings, or the given split parts a group.
    """
    log.info(files.describe())
    files = files.resolve_splits(recipe.data, recipe.train.seed)
    job = _Job(
        data if data.is_dir() else data.parent,
        out,
        _shuffled(files.items, recipe.train.seed),
        files.classes,
        recipe.preprocessing().frame_format,
        shard_bytes,
    )
    out.mkdir(parents=True, exist_ok=True)
    index = _begun(job)
    for torn in out.glob(".part-*.tar"):  # of a process that was killed
        torn.unlink()
    teller = _Teller(len(job.queue), _done(index))
    index = _write_all(job, index, teller, max(1, recipe.data.num_workers))
    write_text(out / INDEX, json.dumps(index.to_dict(), ensure_ascii=False))
    (out / UNFINISHED).unlink(missing_ok=True)
    for item, reason in index.unreadable.items():
        log.warning(f"unreadable: {item.path}: {reason}")
    log.info(index.describe())
    return index


def _shuffled(items: Sequence[VideoItem], seed: int) -> tuple[VideoItem, ...]:
    """The splits one after the other, each in random order, so that no archive is of one class."""
    queue: list[VideoItem] = []
    for number, split in enumerate(SPLIT_ORDER):
        part = sorted((item for item in items if item.split == split), key=lambda item: item.path.as_posix())
        queue += [part[i] for i in np.random.default_rng((seed, number)).permutation(len(part))]
    return tuple(queue)


# What is done already


def _begun(job: _Job) -> Shards:
    """The index as far as it goes. Raises UserError for another job's."""
    fresh = Shards(str(job.out), job.fingerprint(), job.classes, job.frame_format)
    for name in (INDEX, UNFINISHED):
        if (job.out / name).is_file():
            index = Shards.from_dict(str(job.out), json.loads((job.out / name).read_text("utf-8")))
            if index.fingerprint != fresh.fingerprint:
                raise UserError(
                    f"{job.out} holds shards of other videos, or of another split, size, rate or --shard-size-mib; "
                    "choose another --out, or delete them"
                )
            return index
    return fresh


def _done(index: Shards) -> int:
    """How many videos of the queue stand in the index."""
    return len(index.unreadable) + sum(len(shard.items) for shards in index.splits.values() for shard in shards)


# Writing


def _write_all(job: _Job, index: Shards, teller: _Teller, threads: int) -> Shards:
    """The index with all that was left of the queue added, archive by archive."""
    paths = [item.path for item in job.queue[_done(index) :]]
    entries = in_order(paths, partial(_packed, frame_format=job.frame_format), threads)
    try:
        while _done(index) < len(job.queue):
            index = _write_shard(job, index, entries, teller)
            write_text(job.out / UNFINISHED, json.dumps(index.to_dict(), ensure_ascii=False))
    finally:
        entries.close()
    return index


def _write_shard(job: _Job, index: Shards, entries: Iterator[Packed], teller: _Teller) -> Shards:
    """The index with one more archive, made of the next entries."""
    left = job.queue[_done(index) :]
    split = left[0].split
    assert split is not None
    shards = index.splits.get(split, ())
    path, first = job.out / shard_name(split, len(shards)), sum(len(shard.items) for shard in shards)
    items: list[VideoItem] = []
    unreadable = dict(index.unreadable)
    with atomic_write(path) as temporary, tarfile.open(temporary, "w") as tar:
        for item, entry in zip(takewhile(lambda item: item.split == split, left), entries, strict=False):
            teller.count()
            listed = job.listed(item)
            if isinstance(entry, str):
                unreadable[listed] = entry
                continue
            _add_sample(tar, sample_key(split, first + len(items)), listed, entry)
            items.append(listed)
            if tar.offset >= job.shard_bytes:
                break
    if not items:  # all that was left of the split is unreadable
        path.unlink()
        return replace(index, unreadable=unreadable)
    shard = Shard(path.name, size_bytes(path), tuple(items), first)
    return replace(index, splits={**index.splits, split: (*shards, shard)}, unreadable=unreadable)


def _add_sample(tar: tarfile.TarFile, key: str, item: VideoItem, entry: bytes) -> None:
    facts = {"label": item.label, "path": item.path.as_posix(), "group": item.group, "split": item.split}
    for ending, content in (("frames", entry), ("json", json.dumps(facts, ensure_ascii=False).encode())):
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _packed(path: Path, frame_format: FrameFormat) -> Packed:
    """The entry of a video, or the reason why it cannot be read."""
    try:
        clip = read_video(path, frame_format)
    except VideoError as error:
        return str(error)
    return b"".join(pack(clip.frames[0], CODEC, warning=clip.warning))


def in_order(paths: Iterable[Path], work: Callable[[Path], Packed], threads: int) -> Generator[Packed]:
    """The results of `work`, in the order of the paths, a few of them made ahead by several threads."""
    pending: deque[Future[Packed]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for path in paths:
            pending.append(pool.submit(work, path))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Teller:
    """Counts videos, and says now and then how far it is."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.first, self.done = total, done, done
        self.started = self.told = time.monotonic()
        if done:
            log.info(f"going on after {done} of {total} videos")

    def count(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.told > TELL_SECONDS:
            self.told = now
            left_seconds = (now - self.started) / (self.done - self.first) * (self.total - self.done)
            log.info(f"{self.done}/{self.total} videos, {left_seconds / 60:.0f} min to go")
