"""The training loop: epochs, steps, and the moments at which a run can be broken off and gone on with.

The state that is saved is always that between two steps, and a run that goes on from it does, bit for bit on CPUs,
what it would have done.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from msfnet import distributed
from msfnet.atomic_io import atomic_write
from msfnet.data.loading import Batches, ReaderDiedError
from msfnet.training.learner import Learner
from msfnet.training.optim import lr_factor
from msfnet.training.signals import Interrupted, StopRequests
from msfnet.types import UserError

EpochRow = dict[str, float]
OnEpoch = Callable[[EpochRow], None]
Log = Callable[[Mapping[str, float], int], None]
CHECKPOINT = "checkpoint.pt"  # in the run folder's last/
FORMAT = 1


class Loop:
    """One run's way through its epochs. `epoch` and `step` are those to come next; `seconds` the epoch's so far.

    `last` is the folder of the checkpoint. `on_epoch` gets a row of numbers after each epoch, in one process:
    what metrics.csv holds.
    """

    def __init__(
        self,
        learner: Learner,
        train_batches: Batches,
        val_batches: Batches | None,
        last: Path,
        on_epoch: OnEpoch,
        stop: StopRequests,
    ) -> None:
        self.learner, self.train_batches, self.val_batches = learner, train_batches, val_batches
        self.last, self.on_epoch, self.stop = last, on_epoch, stop
        self.log: Log = lambda numbers, step: None
        self.epochs = learner.train.epochs
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.resumed = self.saved = time.monotonic()  # this epoch's clock, and when the last state was written

    def resume(self) -> None:
        """Take up the state that was saved last."""
        state = load_checkpoint(self.last)
        self.learner.load_state(state)
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]

    def run(self, log: Log | None = None) -> None:
        """To the end of the last epoch. `log` gets numbers after each step and epoch, and how many steps there were.

        Raises Interrupted, when the state is saved, soon after a signal asked for it, and ReaderDiedError.
        """
        self.log = log or self.log
        with self.stop.held():
            try:
                while self.epoch < self.epochs:
                    self._run_epoch()
            except Interrupted:
                self._save()
                raise
            except ReaderDiedError:
                if distributed.world_size() == 1:  # others are not at this place
                    self._save()
                raise

    def _run_epoch(self) -> None:
        if self.step == 0:
            self.learner.account.begin_epoch()
            self.seconds = 0.0
        self.resumed = time.monotonic()
        with progress_bar(f"epoch {self.epoch + 1}/{self.epochs}", len(self.train_batches), self.step) as advance:
            for batch in self._awaited(self.train_batches.epoch(self.epoch, self.step)):
                self._step(batch)
                advance()
                self._save_or_stop()
        with self.learner.validating():
            for batch in self._awaited(self.val_batches.epoch()) if self.val_batches else ():
                self.learner.validate(batch)
            lr = self.learner.recipe.learning_rate() * self._lr_factor(0)
            row: EpochRow = {"epoch": self.epoch + 1, "lr": lr} | self.learner.numbers()
            row["seconds"] = self._epoch_seconds()
            if distributed.rank() == 0:
                self.on_epoch(row)
        self.log({f"epoch/{key}": value for key, value in row.items() if key != "epoch"}, self._steps_done())
        self.epoch, self.step = self.epoch + 1, 0
        self._save()

    def _step(self, batch: dict[str, Any]) -> None:
        factor = self._lr_factor(self.step)
        loss = self.learner.step(batch, self.epoch, self.step, factor)
        self.step += 1
        if loss is not None:
            lr = self.learner.recipe.learning_rate() * factor
            self.log({"step/loss": loss, "step/lr": lr}, self._steps_done())

    def _steps_done(self) -> int:
        return self.epoch * len(self.train_batches) + self.step

    def _lr_factor(self, step: int) -> float:
        return lr_factor(self.learner.recipe.optim, self.epoch + step / len(self.train_batches), self.epochs)

    def _awaited(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches, with account of the waiting; alone, a process may be stopped while it waits."""
        alone = distributed.world_size() == 1
        while True:
            with self.learner.timed("data"), self.stop.held(not alone):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _save_or_stop(self) -> None:
        """Between two steps, and in every process at the same one."""
        due = time.monotonic() - self.saved > 60 * self.learner.train.checkpoint_minutes
        wanted, due_somewhere = distributed.add_numbers(bool(self.stop.wanted), due)
        if wanted:
            raise Interrupted(self.stop.wanted or signal.SIGTERM)
        if due_somewhere:
            self._save()

    def _epoch_seconds(self) -> float:
        return self.seconds + time.monotonic() - self.resumed

    def _save(self) -> None:
        place = {"format": FORMAT, "epoch": self.epoch, "step": self.step, "seconds": self._epoch_seconds()}
        state = place | self.learner.state()
        if distributed.rank() == 0:
            save_checkpoint(self.last, state)
        self.saved = time.monotonic()


@contextmanager
def progress_bar(title: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, on standard error; yields what moves it on by one."""
    if not sys.stderr.isatty() or distributed.rank():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda: progress.advance(task)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Whole, or the one that was there before stays."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # written to a full disk, torch would not say that it is full
    torch.save(state, buffer)
    with atomic_write(folder / CHECKPOINT) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Raises UserError for one that is damaged or of another version. Nothing is unpickled but numbers."""
    file = folder / CHECKPOINT
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes torch raise
        raise UserError(f"{file} is damaged and cannot be gone on from; train anew into another --out") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{file} was written by another version of msfnet; train anew into another --out")
    return dict(state)
