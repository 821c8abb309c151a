"""Videos streamed from shards as torch data sets: the same samples as `dataset` makes, read in the planned order.

A sample whose bytes are not those that were written is a sample with an error; a shard that breaks off on its way is
read again from where it broke, a few times. Knows no network and no video file.
"""

from __future__ import annotations

import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from msfnet.data.cache.packed import DamagedEntry, read_header, unpack
from msfnet.data.dataset import Sample, collate
from msfnet.data.loading import Batches
from msfnet.data.sampling import eval_clips, train_sampler
from msfnet.data.shards.index import Shard, ShardIndex, locate, open_file, reason, sample_key, webdataset
from msfnet.data.shards.plan import (
    Reader,
    Route,
    Visit,
    scored_route,
    scored_stretch,
    training_length,
    training_route,
    visits,
)
from msfnet.types import Indices, Preprocessing, UserError

RETRY_SECONDS = (0.5, 2.0, 8.0)  # before each further attempt at a shard that brings nothing new
SHUFFLE_WINDOW = 128  # clips that a reader may hold; the shards themselves were filled in random order

_BROKEN = (OSError, HTTPException, tarfile.TarError, EOFError, zlib.error)


class ShardError(UserError):
    """A shard that cannot be read to its end, in one line."""

    def __init__(self, text: str) -> None:
        # A loader's process hands on its traceback as the text of a new error of this class: its last line is ours.
        super().__init__(text.strip().rpartition(f"{type(self).__name__}: ")[2])


def check_format(index: ShardIndex, preprocessing: Preprocessing) -> None:
    """Raises UserError when the shards hold frames of another size or rate than the network's."""
    if index.frame_format != preprocessing.frame_format:
        raise UserError(
            f"{index.source}: expected shards of {preprocessing.frame_format}, found {index.frame_format}; "
            "write them with the network's own recipe: msfnet shard --recipe RUN/recipe.toml"
        )


class _Shards(IterableDataset[Sample]):
    """What both data sets share: passing through the shards of a route, and yielding samples in its order.

    `rank` of `ranks` and `batch` decide, with the loader's workers, which samples each process yields.
    """

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        *,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        webdataset()
        check_format(index, preprocessing)
        self.index, self.split, self.preprocessing = index, split, preprocessing
        self.batch, self.rank, self.ranks = batch, rank, ranks
        self.shards = index.shards(split)
        self.sizes = [len(shard.items) for shard in self.shards]
        self.items = index.items(split)
        numbers = {label: number for number, label in enumerate(classes)}
        self.labels = [numbers.get(item.label, -1) for item in self.items]

    def _reader(self) -> Reader:
        worker = get_worker_info()
        own = (worker.id, worker.num_workers) if worker else (0, 1)
        return Reader(self.rank, self.ranks, *own)

    def _follow(
        self, route: Route, read: Callable[[Visit], Iterator[Sample]], sizes: Sequence[int]
    ) -> Iterator[Sample]:
        """The samples of a route in its order: those that are read too early wait."""
        arriving = (pair for visit in visits(route, sizes) for pair in zip(visit.places, read(visit), strict=True))
        held: dict[int, Sample] = {}
        for place in route.order.tolist():
            while place not in held:
                arrived, sample = next(arriving)
                held[arrived] = sample
            yield held.pop(place)

    def _read(self, visit: Visit, plan: Callable[[int, int], Indices]) -> Iterator[Sample]:
        """The samples of one visit; `plan` says which frames of a sample of so many frames are wanted."""
        shard, first = self.shards[visit.shard], sum(self.sizes[: visit.shard])
        numbers = [first + sample for sample in visit.samples]
        names = [f"{sample_key(self.split, number)}.frames" for number in numbers]
        entries = read_entries(self.index.source, shard, names)
        started = time.perf_counter()
        for number, name, entry in zip(numbers, names, entries, strict=True):
            try:
                sample = self._unpack(number, entry, plan)
            except DamagedEntry as error:
                sample = Sample(number, self.labels[number], None, f"{error} ({shard.name}, sample {name})")
            yield replace(sample, read_seconds=time.perf_counter() - started)
            started = time.perf_counter()

    def _unpack(self, number: int, entry: bytes | None, plan: Callable[[int, int], Indices]) -> Sample:
        if entry is None:
            raise DamagedEntry("the archive is damaged: the sample is not in it")
        header = read_header(entry)
        video_frames, height, width, _ = header.shape
        if (width, height) != self.index.frame_format.resize or not video_frames:
            raise DamagedEntry(
                f"expected frames of {self.index.frame_format}, found {video_frames} of {width}x{height}"
            )
        indices = plan(number, video_frames)
        frames = torch.from_numpy(unpack(entry, indices, header))
        short = video_frames < indices.shape[-1]
        return Sample(number, self.labels[number], frames, padded=short, warning=header.warning)


class TrainShards(_Shards):
    """One random clip of each training video in each epoch: of this rank's, a pure function of seed, epoch and sample.

    Tell it the epoch with `set_epoch`. Every rank yields equally many: see `plan` for the rule.
    """

    def __init__(
        self,
        *args: Any,
        sampling: str,
        seed: int,
        window: int = SHUFFLE_WINDOW,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = train_sampler(sampling, self.preprocessing.frame_interval)
        self.seed, self.window = seed, window
        # In memory that workers share: those that live on from epoch to epoch must hear of the next.
        self._moment = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Go to an epoch, or to where so many batches of it have been yielded to this rank.

        The rest comes exactly as it would have, as long as ranks, workers and batch are the same.
        """
        length = training_length(sum(self.sizes), self.ranks)
        self._moment.copy_(torch.tensor([epoch, min(done * self.batch, length)]))

    def batches(self) -> int:
        """How many an epoch has, for every rank."""
        return -(-training_length(sum(self.sizes), self.ranks) // self.batch)

    def __len__(self) -> int:
        """The samples that this rank has yet to yield in the epoch."""
        return training_length(sum(self.sizes), self.ranks) - int(self._moment[1])

    def __iter__(self) -> Iterator[Sample]:
        epoch, done = self._moment.tolist()
        route = training_route(
            self.sizes,
            self._reader(),
            batch=self.batch,
            seed=self.seed,
            epoch=epoch,
            window=self.window,
            done=done,
        )
        return self._follow(route, partial(self._read, plan=partial(self._plan, epoch)), self.sizes)

    def _plan(self, epoch: int, number: int, video_frames: int) -> Indices:
        rng = np.random.default_rng((self.seed, epoch, number, 3))
        return self.sampler(video_frames, self.preprocessing.read_frames, rng)[None]


class EvalShards(_Shards):
    """The clips that the videos of a split are scored by, always the same, each video in one rank's turn only.

    Videos that could not be packed come last, as samples with the reason, so that they can be counted as wrong.
    """

    def __init__(self, *args: Any, clips: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clips = clips
        self.reasons = self.index.reasons(self.split)
        self._done = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """To where so many batches have been yielded to this rank; every epoch is the same."""
        self._done.fill_(min(done * self.batch, len(self)))

    def batches(self) -> int:
        return -(-len(self) // self.batch)

    def __len__(self) -> int:
        start, stop = scored_stretch(len(self.items), self.rank, self.ranks)
        return stop - start

    def __iter__(self) -> Iterator[Sample]:
        route = scored_route(len(self.items), self._reader(), batch=self.batch, done=int(self._done))
        return self._follow(route, self._read_or_explain, [*self.sizes, len(self.reasons)])

    def _read_or_explain(self, visit: Visit) -> Iterator[Sample]:
        if visit.shard < len(self.shards):
            return self._read(visit, self._plan)
        first = sum(self.sizes)
        return (Sample(first + n, self.labels[first + n], None, self.reasons[n]) for n in visit.samples)

    def _plan(self, number: int, video_frames: int) -> Indices:
        return eval_clips(self.preprocessing, self.clips, video_frames)


def make_shard_batches(videos: TrainShards | EvalShards, workers: int) -> Batches:
    """Batches of `videos`, of the size that they are planned for, read by `workers` processes."""

    def make() -> DataLoader[Any]:
        return DataLoader(
            videos,
            batch_size=videos.batch,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    return Batches(make, videos.set_epoch, videos.batches())


# One shard's bytes


def read_entries(source: str, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    """The files of a shard with these names, in this order, which is theirs in the archive.

    None stands for a file that is not there although the whole archive came. An archive that breaks off is opened
    again and passed over up to the file it broke at. Raises ShardError when several attempts in a row bring nothing.
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
                text = f"{where} breaks off before {names[done]}, at {attempts + 1} attempts: {reason(error)}"
                raise ShardError(text) from error
            time.sleep(RETRY_SECONDS[attempts])
            attempts += 1


def _read_once(source: str, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    file = _Counted(open_file(source, shard.name), shard.name)
    try:
        yield from _expand(file, shard, names)
    finally:
        with suppress(OSError):  # a command whose output is not read to the end complains
            file.file.close()


def _expand(file: _Counted, shard: Shard, names: Sequence[str]) -> Iterator[bytes | None]:
    """The named files of an archive. Raises one of _BROKEN when not all of its bytes come."""
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
    """A stream that counts the bytes read of it; its name stands in the library's messages."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.n_bytes = 0

    def read(self, n_bytes: int) -> bytes:
        data = self.file.read(n_bytes)
        self.n_bytes += len(data)
        return data

    def __str__(self) -> str:
        return self.name
