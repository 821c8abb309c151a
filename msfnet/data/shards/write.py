"""Write a dataset of video files as shards: each video is decoded once, resized, packed and put into an archive.

Archives are written one after the other under temporary names. `unfinished.json` says after each what is done, and
`shards.json` is written last, so that interrupted work resumes after the last whole archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np

from msfnet.atomic_io import atomic_write, write_text
from msfnet.data.cache.packed import pack_frames
from msfnet.data.dataset import size_bytes
from msfnet.data.shards.index import FORMAT, INDEX, SPLIT_ORDER, UNFINISHED, Shard, Shards, sample_key, shard_name
from msfnet.data.video.decode import read_video
from msfnet.data.video_files import VideoFiles
from msfnet.progress import progress
from msfnet.recipe import Recipe
from msfnet.types import FrameFormat, UserError, VideoError, VideoItem

log = logging.getLogger(__name__)

Packed = bytes | VideoError  # the entry of a video, or why it has none

CODEC = "jpeg"


@dataclass(frozen=True)
class _Job:
    """Everything that decides the content of the shards. `queue` has every video in the order of writing."""

    root: Path
    out: Path
    queue: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    frame_format: FrameFormat
    shard_bytes: int

    def relative(self, item: VideoItem) -> VideoItem:
        """Return the item by its name in the dataset, which is the same on every machine."""
        path = item.path
        return replace(item, path=path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def fingerprint(self) -> str:
        videos = [
            (named.path.as_posix(), named.label, named.split, named.group, size_bytes(item.path))
            for item, named in zip(self.queue, map(self.relative, self.queue), strict=True)
        ]
        settings = (FORMAT, CODEC, *self.frame_format.key, self.shard_bytes)
        return hashlib.sha256(json.dumps([settings, videos]).encode()).hexdigest()


def write_shards(files: VideoFiles, recipe: Recipe, data: Path, out: Path, *, shard_bytes: int) -> Shards:
    """Write video files as shards, or resume where an interrupted call stopped.

    Args:
        files: The videos.
        recipe: Its tables `[clip]` and `[data]` decide the frame format and the splits, its seed the order.
        data: The folder or manifest that the videos were read from; their names in the shards are relative to it.
        out: The folder for the shards.
        shard_bytes: Size at which an archive is closed.

    Returns:
        The shards. Videos that cannot be read are in no archive, but are listed with the reason.

    Raises:
        UserError: `out` holds shards of other videos or settings, or the given split separates videos of one group.
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
    shards = _read_unfinished(job)
    for partial_file in out.glob(".part-*.tar"):  # left by a process that was killed
        partial_file.unlink()
    shards = _write_all(job, shards, max(1, recipe.data.num_workers))
    write_text(out / INDEX, json.dumps(shards.to_dict(), ensure_ascii=False))
    (out / UNFINISHED).unlink(missing_ok=True)
    for item, reason in shards.unreadable.items():
        log.warning("unreadable: %s: %s", item.path, reason)
    log.info(shards.describe())
    return shards


def _shuffled(items: Sequence[VideoItem], seed: int) -> tuple[VideoItem, ...]:
    """Return the splits one after the other, each in random order, so that no archive is of one class."""
    queue: list[VideoItem] = []
    for number, split in enumerate(SPLIT_ORDER):
        part = sorted((item for item in items if item.split == split), key=lambda item: item.path.as_posix())
        queue += [part[i] for i in np.random.default_rng((seed, number)).permutation(len(part))]
    return tuple(queue)


def _read_unfinished(job: _Job) -> Shards:
    """Return what has been written before. Raises UserError for the shards of another job."""
    empty = Shards(str(job.out), job.fingerprint(), job.classes, job.frame_format)
    for name in (INDEX, UNFINISHED):
        if (job.out / name).is_file():
            shards = Shards.from_dict(str(job.out), json.loads((job.out / name).read_text("utf-8")))
            if shards.fingerprint != empty.fingerprint:
                raise UserError(
                    f"{job.out} holds shards of other videos, or of another split, size, rate or --shard-size-mib; "
                    "choose another --out, or delete them"
                )
            return shards
    return empty


def _write_all(job: _Job, shards: Shards, threads: int) -> Shards:
    """Return the shards with the rest of the queue added, archive by archive."""
    done = len(shards.items)
    if done:
        log.info("resuming after %d of %d videos", done, len(job.queue))
    paths = [item.path for item in job.queue[done:]]
    entries = prefetch(partial(_pack, frame_format=job.frame_format), paths, threads)
    try:
        with progress("writing shards", len(job.queue), done) as advance:
            while len(shards.items) < len(job.queue):
                shards = _write_shard(job, shards, entries, advance)
                write_text(job.out / UNFINISHED, json.dumps(shards.to_dict(), ensure_ascii=False))
    finally:
        entries.close()
    return shards


def _write_shard(job: _Job, shards: Shards, entries: Iterator[Packed], advance: Callable[[int], None]) -> Shards:
    """Return the shards with one more archive, made of the next entries."""
    rest = job.queue[len(shards.items) :]
    split = rest[0].split
    assert split is not None
    archives = shards.splits.get(split, ())
    path, first = job.out / shard_name(split, len(archives)), sum(len(shard.items) for shard in archives)
    items: list[VideoItem] = []
    unreadable = dict(shards.unreadable)
    with atomic_write(path) as temporary, tarfile.open(temporary, "w") as tar:
        for item, entry in zip(takewhile(lambda item: item.split == split, rest), entries, strict=False):
            advance(1)
            named = job.relative(item)
            if isinstance(entry, VideoError):
                unreadable[named] = str(entry)
                continue
            _add_sample(tar, sample_key(split, first + len(items)), named, entry)
            items.append(named)
            if tar.offset >= job.shard_bytes:
                break
    if not items:  # the rest of the split is unreadable
        path.unlink()
        return replace(shards, unreadable=unreadable)
    shard = Shard(path.name, size_bytes(path), tuple(items), first)
    return replace(shards, splits={**shards.splits, split: (*archives, shard)}, unreadable=unreadable)


def _add_sample(tar: tarfile.TarFile, key: str, item: VideoItem, entry: bytes) -> None:
    facts = {"label": item.label, "path": item.path.as_posix(), "group": item.group, "split": item.split}
    for ending, content in (("frames", entry), ("json", json.dumps(facts, ensure_ascii=False).encode())):
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _pack(path: Path, frame_format: FrameFormat) -> Packed:
    try:
        clip = read_video(path, frame_format)
    except VideoError as error:
        return error
    return b"".join(pack_frames(clip.frames[0], CODEC, warning=clip.warning))


def prefetch(work: Callable[[Path], Packed], paths: Iterable[Path], threads: int) -> Generator[Packed]:
    """Yield the results of `work` in the order of the paths, while threads compute the next few."""
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
