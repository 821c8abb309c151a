"""The training loop: epochs, steps, and the moments between steps at which a run can stop and be resumed.

A checkpoint is always the state between two steps. A run that resumes from it computes what it would have computed
without the interruption, bit for bit on CPUs.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msfnet import distributed
from msfnet.atomic_io import atomic_write
from msfnet.data.loading import Batch, Batches, WorkerDiedError
from msfnet.progress import progress
from msfnet.run_folder import EpochRow
from msfnet.training.learner import Learner
from msfnet.training.optim import lr_factor
from msfnet.training.signals import SignalHandler
from msfnet.types import Interrupted, UserError

LogNumbers = Callable[[Mapping[str, float], int], None]  # called with numbers and how many steps were taken before
FORMAT = 1  # version of the checkpoint format


class UnreadableVideoError(Exception):
    """A video cannot be read, and the recipe ends the run then; `index` is its position in its split."""

    def __init__(self, split: str, index: int, reason: str) -> None:
        super().__init__(reason)
        self.split, self.index = split, index


class DivergedError(Exception):
    """The loss of a step is NaN or infinite; `indices` are those of its training videos."""

    def __init__(self, loss: float, epoch: int, step: int, indices: list[int]) -> None:
        super().__init__(f"the loss is {loss} at batch {step} of epoch {epoch}")
        self.indices = indices


class Loop:
    """Trains from the state of a learner to the last epoch.

    Args:
        learner: The network in training.
        train_batches: Training batches of this process.
        val_batches: Validation batches; None without validation videos.
        checkpoint: The file to save the state in.
        on_epoch: Called in the first process after each epoch, with its row of metrics.csv.
        signals: Interrupts the loop between two steps.

    Attributes:
        epoch, step: Numbers, from 0, of the epoch and step that come next.
    """

    def __init__(
        self,
        learner: Learner,
        train_batches: Batches,
        val_batches: Batches | None,
        checkpoint: Path,
        on_epoch: Callable[[EpochRow], None],
        signals: SignalHandler,
    ) -> None:
        self.learner, self.train_batches, self.val_batches = learner, train_batches, val_batches
        self.checkpoint, self.on_epoch, self.signals = checkpoint, on_epoch, signals
        self.log_numbers: LogNumbers = lambda numbers, step: None
        self.epochs = learner.settings.epochs
        self.epoch, self.step = 0, 0
        self._last: _LastStep | None = None  # a step whose loss has not been read
        self._agreed = False  # whether all processes have stopped between the same two steps
        self._seconds = 0.0  # seconds of the epoch before this process began or resumed it
        self._begun = self._saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the checkpoint. Raises UserError for a file that is damaged or of another version."""
        state = load_checkpoint(self.checkpoint)
        self.learner.load_state(state)
        self.epoch, self.step, self._seconds = state["epoch"], state["step"], state["epoch_seconds"]

    def run(self, log_numbers: LogNumbers | None = None) -> None:
        """Train to the end of the last epoch.

        Args:
            log_numbers: Called with the numbers of every step and of every epoch.

        Raises:
            Interrupted: A signal arrived; the state is saved.
            WorkerDiedError: A process that reads videos died; the state is saved, but for the validation of a run of
                several processes.
            DivergedError: A loss is NaN or infinite; no state that this step led to is saved.
            UnreadableVideoError: A video cannot be read, and the recipe ends the run then.
        """
        self.log_numbers = log_numbers or self.log_numbers
        with self.signals.deferred():
            try:
                while self.epoch < self.epochs:
                    self._run_epoch()
            except (Interrupted, WorkerDiedError):
                if self._agreed or distributed.world_size() == 1:  # else the other processes are elsewhere
                    self._save()
                raise

    def _run_epoch(self) -> None:
        if self.step == 0:
            self.learner.begin_epoch()
            self._seconds = 0.0
        self._begun = time.monotonic()
        with progress(f"epoch {self.epoch + 1}/{self.epochs}", len(self.train_batches), self.step) as advance:
            try:
                for batch in self._next_batches(self.train_batches.epoch(self.epoch, self.step)):
                    self._take_step(batch, self._agree(batch))
                    advance(1)
            except WorkerDiedError as error:
                if self._agreed:  # it was raised in all processes
                    raise
                self._agree(None, error)
            self._agree(None)
        with self.learner.validating():
            for batch in self._next_batches(self.val_batches.epoch()) if self.val_batches else ():
                self.learner.validate(batch)
            row: EpochRow = {"epoch": self.epoch + 1, "lr": self._learning_rate(0)} | self.learner.epoch_row()
            unreadable = self.learner.problems.val_unreadable
            if unreadable and self.learner.recipe.data.on_unreadable_eval == "fail":
                raise UnreadableVideoError("val", *next(iter(unreadable.items())))
            row["seconds"] = self._epoch_seconds()
            if distributed.rank() == 0:
                self.on_epoch(row)
        self.log_numbers({f"epoch/{key}": value for key, value in row.items() if key != "epoch"}, self._steps_taken())
        self.epoch, self.step = self.epoch + 1, 0
        self._save()

    def _next_batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches while measuring the wait for them, in which a signal may interrupt a run of one process."""
        alone = distributed.world_size() == 1
        while True:
            with self.learner.timer.measure_wait("data"), self.signals.deferred(not alone):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _agree(self, batch: Batch | None, death: WorkerDiedError | None = None) -> list[int]:
        """Finish the last step and agree with all processes on what comes next, in a single all-reduce.

        What ends the run in one process must end it in all, between the same two steps, or the others would wait.

        Args:
            batch: The batch of the next step; None if there is no next step.
            death: What ended the reading of batches, if anything did.

        Returns:
            How many clips each process has in the next step.
        """
        unreadable = self.learner.record_problems(batch) if batch else None
        due = time.monotonic() - self._saved > 60 * self.learner.settings.checkpoint_minutes
        rows = distributed.gather_numbers(
            self.learner.finish_step(),
            len(batch.labels) if batch else 0,
            unreadable is not None,
            death is not None,
            self.signals.received,
            due,
        )
        losses, clips, unreadables, deaths, signals, dues = zip(*rows, strict=True)
        self._report_loss(sum(losses))
        if any(unreadables):
            raise UnreadableVideoError("train", *next(filter(None, distributed.gather(unreadable))))
        self._agreed = any(deaths) or any(signals)
        if any(deaths):
            raise death or WorkerDiedError("a worker process that reads videos for another process of the run died")
        if any(signals):
            raise Interrupted(int(max(signals)))
        if any(dues):
            self._save()
        return [int(n) for n in clips]

    def _take_step(self, batch: Batch, clips: list[int]) -> None:
        taken = self.learner.step(batch, clips, self.epoch, self.step, self._lr_factor(self.step))
        if taken:
            self._last = _LastStep(batch.indices, sum(clips), self._learning_rate(self.step))
        self.step += 1

    def _report_loss(self, loss: float) -> None:
        """Log the loss of the last step, summed over its clips in all processes."""
        last, self._last = self._last, None
        if last is None:
            return
        if not math.isfinite(loss):
            indices = [index for own in distributed.gather(last.indices) for index in own]
            raise DivergedError(loss, self.epoch + 1, self.step, indices)
        self.log_numbers({"step/loss": loss / last.n_clips, "step/lr": last.lr}, self._steps_taken())

    def _steps_taken(self) -> int:
        return self.epoch * len(self.train_batches) + self.step

    def _lr_factor(self, step: int) -> float:
        return lr_factor(self.learner.recipe.optim, self.epoch + step / len(self.train_batches), self.epochs)

    def _learning_rate(self, step: int) -> float:
        return self.learner.recipe.learning_rate() * self._lr_factor(step)

    def _epoch_seconds(self) -> float:
        return self._seconds + time.monotonic() - self._begun

    def _save(self) -> None:
        if self._last:  # interrupted while it waited for the batch after this step
            self._report_loss(self.learner.finish_step())
        place = {"format": FORMAT, "epoch": self.epoch, "step": self.step, "epoch_seconds": self._epoch_seconds()}
        state = place | self.learner.state()
        if distributed.rank() == 0:
            save_checkpoint(self.checkpoint, state)
        self._saved = time.monotonic()


@dataclass(frozen=True)
class _LastStep:
    """What is reported of a step once its loss has been read."""

    indices: list[int]  # of this process's videos, in their split
    n_clips: int  # clips of all processes
    lr: float


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. When that fails, the previous one remains."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # torch does not report that a disk is full
    torch.save(state, buffer)
    with atomic_write(file) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint. No code in it is run.

    Raises:
        UserError: The file is damaged, or of another version of msfnet.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many types for a damaged file
        raise UserError(
            f"expected a checkpoint in {file}, found a damaged file; train again with another --out"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise UserError(f"expected a checkpoint of format {FORMAT} in {file}, found {found}; update msfnet to resume")
    if found != FORMAT:
        raise UserError(
            f"expected a checkpoint of format {FORMAT} in {file}, found another file; train again with another --out"
        )
    return dict(state)
