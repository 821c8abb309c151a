"""Batches epoch after epoch, whatever becomes of the processes that read them. Knows no video and no network."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

log = logging.getLogger(__name__)

DEATHS = 3  # of reading processes, in one epoch, before a run gives up
REMEDY = "often the machine ran out of memory: lower data.num_workers"


class ReaderDiedError(RuntimeError):
    """Processes that read videos died again and again."""


class Batches:
    """The batches of a loader from any place of any epoch. When a reader dies, others go on with the same batches.

    `make` makes the loader, anew after a death. `set_epoch` tells its sampler or its data the epoch and how many batches
    of it are done; the rest must come as it would have come. Every process of a run has `n_batches` in an epoch.
    """

    def __init__(
        self, make: Callable[[], DataLoader[Any]], set_epoch: Callable[[int, int], None], n_batches: int
    ) -> None:
        self.make, self.set_epoch, self.n_batches = make, set_epoch, n_batches
        self.loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return self.n_batches

    def epoch(self, epoch: int = 0, done: int = 0) -> Iterator[dict[str, Any]]:
        """Raises ReaderDiedError when readers keep dying; no death goes unnoticed for more than some seconds."""
        deaths = 0
        while True:
            self.set_epoch(epoch, done)
            self.loader = self.loader or self.make()
            try:
                for batch in _quietly_iterate(self.loader):
                    done += 1
                    yield batch
                return
            except (RuntimeError, EOFError, OSError) as error:
                if not self.loader.num_workers or not _tells_of_a_death(error):
                    raise
                deaths += 1
                self.loader = None  # a loader that has lost a process is of no more use
                if deaths > DEATHS:
                    raise ReaderDiedError(f"{deaths} processes that read videos died; {REMEDY}") from error
                how = str(error) or type(error).__name__
                log.info(f"a process that reads videos died ({how}); another goes on from batch {done + 1}; {REMEDY}")


def _tells_of_a_death(error: Exception) -> bool:
    """Whether a loader raised this of a process that is gone, rather than passed on what its data raised.

    Who dies while it hands over a tensor leaves a connection cut short or, of its socket, not even the file.
    """
    if "in DataLoader worker process" in str(error):  # torch's words for an error in the data
        return False
    cut_short = isinstance(error, (EOFError, ConnectionError, FileNotFoundError))
    return cut_short or "DataLoader worker (pid" in str(error)


def _quietly_iterate(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    """Iterate, with the handler undone by which torch raises a worker's death in the midst of anything.

    A death is then found where a batch is waited for, between two steps, and never within one.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, handler if callable(handler) else signal.SIG_DFL)
    return iterator
