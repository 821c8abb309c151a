"""Clips streamed from shards: samples in the planned order, and their batches.

A sample whose bytes are not those that were written becomes a sample with an error. A shard whose transfer is
interrupted is read again from there, a few times. This module is independent of networks and video files.
"""

from __future__ import annotations

import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from types import ModuleType

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from msfnet import distributed
from msfnet.data.cache.packed import DamagedEntryError, read_header, unpack_frames
from msfnet.data.loading import Batches, Sample, collate
from msfnet.data.sampling import eval_clips, is_short, train_clip_sampler
from msfnet.data.shards.index import Shard, Shards
from msfnet.data.shards.location import Stream, error_line, locate, open_file
from msfnet.data.shards.plan import (
    Route,
    ShardPass,
    Worker,
    eval_part,
    eval_route,
    samples_per_rank,
    shard_passes,
    train_route,
)
from msfnet.data.thumbnails import side_by_side, thumbnail_sampler
from msfnet.types import Frames, Indices, Ints, Preprocessing, UserError, VideoItem

RETRY_SECONDS = (0.5, 2.0, 8.0)  # before each further attempt at a shard that brings nothing new
SHUFFLE_WINDOW = 128  # clips that a reader may hold; the shards themselves were filled in random order

_BROKEN = (OSError, HTTPException, tarfile.TarError, EOFError, zlib.error)


class ShardError(UserError):
    """A shard that cannot be read to its end, in one line."""


class ShardLoader:
    """Batches of clips from shards, for this process of a run: see `msfnet.data.dataset.ClipLoader`.

    Args:
        shards: The dataset.
        preprocessing: The network's preprocessing.
        num_workers: Processes that read shards; with 0 this process reads them.

    Raises:
        UserError: The shards hold frames of another size or rate than the network's, or webdataset is missing.
    """

    def __init__(self, shards: Shards, preprocessing: Preprocessing, *, num_workers: int = 0) -> None:
        webdataset()
        if shards.frame_format != preprocessing.frame_format:
            raise UserError(
                f"{shards.source}: expected shards of {preprocessing.frame_format}, found {shards.frame_format}; "
                "write them with the network's own recipe: msfnet shard --recipe RUN/recipe.toml"
            )
        self.shards, self.preprocessing, self.num_workers = shards, preprocessing, num_workers

    def train_batches(self, *, sampling: str, batch_size: int, seed: int) -> Batches:
        """See `msfnet.data.dataset.ClipLoader`."""
        if batch_size % (ranks := distributed.world_size()):
            raise UserError(
                f"expected train.batch_size to divide among {ranks} processes when they read shards, found {batch_size}"
            )
        own = _part_of_process(batch_size)
        videos = TrainShards(self.shards, self.preprocessing, sampling=sampling, seed=seed, **own)
        return make_shard_batches(videos, self.num_workers)

    def eval_batches(self, items: Sequence[VideoItem], *, clips: int, batch_size: int) -> Batches:
        """See `msfnet.data.dataset.ClipLoader`."""
        own = _part_of_process(batch_size)
        videos = EvalShards(self.shards, self.preprocessing, items, clips=clips, **own)
        return make_shard_batches(videos, self.num_workers)

    def problems(self) -> list[str]:
        """Return no problems: those of shards are errors or reasons of single videos."""
        return []


def make_shard_batches(videos: TrainShards | EvalShards, num_workers: int) -> Batches:
    """Return batches of `videos`, read by `num_workers` processes that live as long as these."""
    loader = DataLoader(
        videos,
        batch_size=videos.batch,
        num_workers=num_workers,
        collate_fn=collate,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return Batches(loader, videos.set_epoch, videos.n_batches())


def _part_of_process(batch_size: int) -> dict[str, int]:
    """Return this process's part of batches of this many clips over all processes."""
    ranks = distributed.world_size()
    return {"batch": max(1, batch_size // ranks), "rank": distributed.rank(), "ranks": ranks}


class _ShardClips(IterableDataset["Sample | UserError"]):
    """What training and evaluation have in common: reading the shards of a route, and yielding samples in its order.

    Samples are numbered through all `archives`. `rank` of `ranks` and `batch`, the clips of a batch in one process,
    decide with the loader's workers which samples each process yields.
    """

    def __init__(
        self,
        shards: Shards,
        archives: Sequence[Shard],
        preprocessing: Preprocessing,
        *,
        batch: int,
        rank: int,
        ranks: int,
    ) -> None:
        self.source, self.frame_format, self.preprocessing = shards.source, shards.frame_format, preprocessing
        self.batch, self.rank, self.ranks = batch, rank, ranks
        self.archives = archives
        self.sizes = [len(shard.items) for shard in archives]
        numbers = {label: number for number, label in enumerate(shards.classes)}
        self.labels = [numbers[item.label] for shard in archives for item in shard.items]

    def _worker(self) -> Worker:
        info = get_worker_info()
        own = (info.id, info.num_workers) if info else (0, 1)
        return Worker(self.rank, self.ranks, *own)

    def _follow(
        self, route: Route, read: Callable[[ShardPass], Iterator[Sample]], sizes: Sequence[int]
    ) -> Iterator[Sample | UserError]:
        """Yield the samples of a route in its order; an error that ends the run is yielded as the last value."""
        passes = shard_passes(route, sizes)
        arriving = (pair for one in passes for pair in zip(one.positions, read(one), strict=True))
        waiting: dict[int, Sample] = {}
        try:
            for position in route.order.tolist():
                while position not in waiting:
                    arrived, sample = next(arriving)
                    waiting[arrived] = sample
                yield waiting.pop(position)
        except UserError as error:
            yield error

    def _read(self, shard_pass: ShardPass, sampler: Callable[[int, int], Indices]) -> Iterator[Sample]:
        """Yield the samples of one pass; `sampler` maps a sample and its number of frames to frame indices."""
        shard, first = self.archives[shard_pass.shard], sum(self.sizes[: shard_pass.shard])
        keys = shard.sample_keys()
        names = [f"{keys[number]}.frames" for number in shard_pass.samples]
        entries = read_entries(self.source, shard, names)
        started = time.perf_counter()
        for number, name, entry in zip(shard_pass.samples, names, entries, strict=True):
            try:
                sample = self._unpack(first + number, entry, sampler)
            except DamagedEntryError as error:
                reason = f"{error} ({shard.name}, sample {name})"
                sample = Sample(first + number, self.labels[first + number], None, reason)
            yield replace(sample, read_seconds=time.perf_counter() - started)
            started = time.perf_counter()

    def _unpack(self, number: int, entry: bytes | None, sampler: Callable[[int, int], Indices]) -> Sample:
        if entry is None:
            raise DamagedEntryError("the archive is damaged: the sample is not in it")
        header = read_header(entry)
        video_frames, height, width, _ = header.shape
        if (width, height) != self.frame_format.resize or not video_frames:
            raise DamagedEntryError(f"expected frames of {self.frame_format}, found {video_frames} of {width}x{height}")
        indices = sampler(number, video_frames)
        frames = torch.from_numpy(unpack_frames(entry, indices, header))
        short = is_short(video_frames, indices.shape[-1])
        return Sample(number, self.labels[number], frames, padded=short, warning=header.warning)


class TrainShards(_ShardClips):
    """One random clip of each training video of this rank in each epoch, a pure function of seed, epoch and video.

    Every rank yields as many samples as every other: see `plan`.

    Args:
        shards: The dataset.
        preprocessing: The network's preprocessing.
        sampling: How a clip's frames are drawn: `clip.train_sampling` of a recipe.
        seed: Seed of the order and of the clips.
        batch: Clips of a batch in this process.
        rank: The number of this process.
        ranks: How many processes there are.
        window: Size of the shuffle window of a worker.
    """

    def __init__(
        self,
        shards: Shards,
        preprocessing: Preprocessing,
        *,
        sampling: str,
        seed: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        window: int = SHUFFLE_WINDOW,
    ) -> None:
        archives = shards.splits.get("train", ())
        super().__init__(shards, archives, preprocessing, batch=batch, rank=rank, ranks=ranks)
        self.sampler = train_clip_sampler(sampling, preprocessing.frame_interval)
        self.seed, self.window = seed, window
        # In memory that worker processes share, since they live longer than an epoch.
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that is iterated over next, and its first batch.

        The rest comes exactly as it would have, as long as ranks, workers and batch are the same.
        """
        length = samples_per_rank(sum(self.sizes), self.ranks)
        self._position.copy_(torch.tensor([epoch, min(start_batch * self.batch, length)]))

    def n_batches(self) -> int:
        """Count the batches of a whole epoch, the same for every rank."""
        return -(-samples_per_rank(sum(self.sizes), self.ranks) // self.batch)

    def __len__(self) -> int:
        """Return the samples that this rank has yet to yield in the epoch."""
        return samples_per_rank(sum(self.sizes), self.ranks) - int(self._position[1])

    def __iter__(self) -> Iterator[Sample | UserError]:
        epoch, done = self._position.tolist()
        route = train_route(
            self.sizes,
            self._worker(),
            batch=self.batch,
            seed=self.seed,
            epoch=epoch,
            window=self.window,
            done=done,
        )
        return self._follow(route, partial(self._read, sampler=partial(self._indices, epoch)), self.sizes)

    def _indices(self, epoch: int, number: int, video_frames: int) -> Indices:
        rng = np.random.default_rng((self.seed, epoch, number, 3))
        return self.sampler(video_frames, self.preprocessing.read_frames, rng)[None]


class EvalShards(_ShardClips):
    """The clips that videos are evaluated on, always the same; each video is in the part of one rank only.

    Videos are read in the order of the shards. Those that could not be packed come last, as samples with the reason,
    so that they can be counted as wrong.

    Args:
        shards: The dataset.
        preprocessing: The network's preprocessing.
        items: The videos; samples are numbered by their positions here.
        clips: Clips of each video.
        batch: Videos of a batch in this process.
        rank: The number of this process.
        ranks: How many processes there are.
    """

    def __init__(
        self,
        shards: Shards,
        preprocessing: Preprocessing,
        items: Sequence[VideoItem],
        *,
        clips: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        archives = [shard for split in shards.splits.values() for shard in split]
        super().__init__(shards, archives, preprocessing, batch=batch, rank=rank, ranks=ranks)
        self.clips = clips
        packed = [item for shard in archives for item in shard.items]
        order = {item: number for number, item in enumerate([*packed, *shards.unreadable])}
        self.reasons = list(shards.unreadable.values())
        self.labels += [shards.classes.index(item.label) for item in shards.unreadable]
        found = sorted((order[item], index) for index, item in enumerate(items))
        self.numbers: Ints = np.array([number for number, _ in found], np.int64)  # indices of the samples, ascending
        self.indices = dict(found)  # their positions in `items`
        self._done = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the first batch of the next iteration; every epoch is the same."""
        self._done.fill_(min(start_batch * self.batch, len(self)))

    def n_batches(self) -> int:
        """Count this rank's batches."""
        return -(-len(self) // self.batch)

    def __len__(self) -> int:
        start, stop = eval_part(len(self.numbers), self.rank, self.ranks)
        return stop - start

    def __iter__(self) -> Iterator[Sample | UserError]:
        route = eval_route(len(self.numbers), self._worker(), batch=self.batch, done=int(self._done))
        route = Route(self.numbers[route.sequence], route.order)
        for sample in self._follow(route, self._read_or_explain, [*self.sizes, len(self.reasons)]):
            yield sample if isinstance(sample, UserError) else replace(sample, index=self.indices[sample.index])

    def _read_or_explain(self, shard_pass: ShardPass) -> Iterator[Sample]:
        if shard_pass.shard < len(self.archives):
            return self._read(shard_pass, self._indices)
        first = sum(self.sizes)
        return (Sample(first + n, self.labels[first + n], None, self.reasons[n]) for n in shard_pass.samples)

    def _indices(self, number: int, video_frames: int) -> Indices:
        return eval_clips(self.preprocessing, self.clips, video_frames)


def shard_thumbnails(shards: Shards, paths: Sequence[str]) -> Mapping[str, Frames]:
    """Read thumbnails H W 3 of the videos with these names, for those that can be read."""
    wanted = set(paths)
    thumbnails: dict[str, Frames] = {}
    for shard in (shard for split in shards.splits.values() for shard in split):
        names = [item.path.as_posix() for item in shard.items]
        chosen = {f"{key}.frames": name for key, name in zip(shard.sample_keys(), names, strict=True) if name in wanted}
        if not chosen:
            continue
        with suppress(*_BROKEN):  # moved or damaged since: the page does without
            for name, entry in zip(chosen.values(), _read_once(shards.source, shard, list(chosen)), strict=True):
                with suppress(DamagedEntryError):
                    header = read_header(entry or b"")
                    frames = unpack_frames(entry or b"", thumbnail_sampler(header.shape[0]), header)[0]
                    thumbnails[name] = side_by_side(frames)
    return thumbnails


def webdataset() -> ModuleType:
    """Import the library, or raise a UserError that says how to install it."""
    try:
        import webdataset
    except ImportError as error:
        raise UserError("webdataset, which reads shards, is not installed; run pip install 'msfnet[shards]'") from error
    return webdataset


# One shard's bytes


def read_entries(source: str, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    """Read some files of a shard.

    An archive whose transfer is interrupted is opened again and skipped up to the file that was not read.

    Args:
        source: The folder or URL of the shards.
        shard: The shard.
        names: Names of files in the order that they have in the archive.

    Yields:
        The bytes of each file; None for one that is not in the archive.

    Raises:
        ShardError: Several attempts in a row brought nothing.
    """
    done, attempts = 0, 0
    while done < len(names):
        try:
            for entry in _read_once(source, shard, names[done:]):
                yield entry
                done, attempts = done + 1, 0
        except _BROKEN as error:
            if attempts == len(RETRY_SECONDS):
                where = locate(source, shard.name)
                raise ShardError(
                    f"{where} cannot be read from {names[done]} on, after {attempts + 1} attempts: {error_line(error)}"
                ) from error
            time.sleep(RETRY_SECONDS[attempts])
            attempts += 1


def _read_once(source: str, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    with closing(open_file(source, shard.name)) as file:
        yield from _expand(_Counted(file, shard.name), shard, names)


def _expand(file: _Counted, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    """Yield the named files of an archive. Raises one of _BROKEN when not all of its bytes come."""
    from webdataset.tariterators import tar_file_iterator

    wanted = {name: position for position, name in enumerate(names)}
    next_position = 0
    problem: Exception | None = None
    try:
        for found in tar_file_iterator(file, select_files=wanted.__contains__):
            position = wanted[found["fname"]]
            if position < next_position:
                continue
            for _ in range(next_position, position):
                yield None
            yield found["data"]
            next_position = position + 1
            if next_position == len(names):
                return
    except _BROKEN as error:
        problem = error
    while file.read(2**20):
        pass
    if file.n_bytes != shard.size_bytes:
        raise problem or OSError(f"expected {shard.size_bytes} bytes, found {file.n_bytes}")
    for _ in range(next_position, len(names)):
        yield None


class _Counted:
    """A stream that counts the bytes read of it; the library's messages hold its name."""

    def __init__(self, file: Stream, name: str) -> None:
        self.file, self.name = file, name
        self.n_bytes = 0

    def read(self, n_bytes: int) -> bytes:
        data = self.file.read(n_bytes)
        self.n_bytes += len(data)
        return data

    def __str__(self) -> str:
        return self.name
