"""Batches of clips from worker processes, epoch after epoch; independent of how videos are stored."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from msfnet.types import UserError

log = logging.getLogger(__name__)

EXIT_SECONDS = 1.0  # how long a worker that closed its connection may take to be gone


class WorkerDiedError(RuntimeError):
    """A worker process that reads videos ended without being asked to."""


@dataclass(frozen=True)
class Sample:
    """What reading one video gave: `frames` uint8 V T H W 3, or None and the `error`."""

    index: int
    label: int
    frames: Tensor | None
    error: str | None = None
    padded: bool = False
    warning: str | None = None
    read_seconds: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Clips of several videos as uint8 frames, with the problems of videos that are missing or damaged.

    Args:
        clips: Frames N V T H W 3, or None where no video of the batch could be read.
        labels: Class indices N.
        indices: The index of each video N in the list that the batches are of.
        positions: The position of each clip N in the whole batch, before it lost the videos that could not be read.
        unreadable: The reason of each video that could not be read, by its index.
        warnings: What is wrong with each damaged video that was read in part, by its index.
        padded: Indices of the videos that are shorter than a clip; their last frame is repeated.
        worker_seconds: What finding, decoding and resizing the frames took, summed over the videos.
    """

    clips: Tensor | None
    labels: Tensor
    indices: list[int]
    positions: list[int]
    unreadable: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)
    padded: list[int] = field(default_factory=list)
    worker_seconds: float = 0.0

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory. A DataLoader calls this where the device is a GPU."""
        clips = None if self.clips is None else self.clips.pin_memory()
        return replace(self, clips=clips, labels=self.labels.pin_memory())


def collate(samples: Sequence[Sample | UserError]) -> Batch | UserError:
    """Stack the samples that were read into a batch; an error that ends the run takes the batch's place."""
    read: list[Sample] = []
    frames, positions, unreadable = [], [], {}
    for position, sample in enumerate(samples):
        if isinstance(sample, UserError):
            return sample
        if sample.frames is None:
            unreadable[sample.index] = sample.error or "no frames"
            continue
        read.append(sample)
        frames.append(sample.frames)
        positions.append(position)
    return Batch(
        clips=torch.stack(frames) if frames else None,
        labels=torch.tensor([sample.label for sample in read], dtype=torch.int64),
        indices=[sample.index for sample in read],
        positions=positions,
        unreadable=unreadable,
        warnings={sample.index: sample.warning for sample in read if sample.warning},
        padded=[sample.index for sample in read if sample.padded],
        worker_seconds=sum(sample.read_seconds for sample in samples if isinstance(sample, Sample)),
    )


class Batches:
    """The batches of each epoch, which can start at any batch.

    Args:
        loader: Yields what `collate` returns.
        set_epoch: Called with the epoch and the number of its first batch before each iteration of the loader.
        n_batches: How many batches an epoch has, the same in every process of a run.
    """

    def __init__(self, loader: DataLoader[Any], set_epoch: Callable[[int, int], None], n_batches: int) -> None:
        self.loader, self.set_epoch, self.n_batches = loader, set_epoch, n_batches
        self._workers: list[BaseProcess] = []

    def __len__(self) -> int:
        return self.n_batches

    def epoch(self, epoch: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch from `start_batch` on.

        Raises:
            WorkerDiedError: A worker process died, at most seconds ago.
            UserError: The data cannot be read any further.
        """
        self.set_epoch(epoch, start_batch)
        try:
            for batch in self._start():
                if isinstance(batch, UserError):  # handed over as a value: torch would make a new error of its text
                    try:
                        raise batch
                    finally:
                        del batch  # or it and its traceback hold each other, and with them the workers
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            if (code := self._dead_worker()) is None:
                raise
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise WorkerDiedError(
                f"a worker process that reads videos {how}; often the machine ran out of memory: lower data.num_workers"
            ) from error

    def _start(self) -> Iterator[Batch | UserError]:
        """Start an iteration, without torch's signal handler, which raises a worker's death at any point.

        A death is then noticed where a batch is waited for, between two training steps, and never within one.
        """
        catchable = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if catchable else None
        before = set(multiprocessing.active_children())
        iterator = iter(self.loader)
        self._workers += [process for process in multiprocessing.active_children() if process not in before]
        if catchable:
            signal.signal(signal.SIGCHLD, handler if callable(handler) else signal.SIG_DFL)
        return iterator

    def _dead_worker(self) -> int | None:
        """Return the exit code of a worker that has ended, None where all are alive."""
        wait([worker.sentinel for worker in self._workers], timeout=EXIT_SECONDS if self._workers else 0)
        return next((worker.exitcode for worker in self._workers if worker.exitcode is not None), None)
