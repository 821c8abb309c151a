"""A network in training: one optimizer step, one validation batch, and the state that a run resumes from.

This module is independent of the order of batches, of files and of signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet import distributed
from msfnet.data.augment.augmentation import Augmentation, Transform
from msfnet.data.loading import Batch
from msfnet.data.transforms import crop_views, normalize
from msfnet.models.zoo import channels_last
from msfnet.recipe import Recipe
from msfnet.run_folder import TIMED_PARTS
from msfnet.training.batchnorm import average_batch_statistics, to_synced_batchnorm
from msfnet.training.checkpointing import checkpoint_blocks
from msfnet.training.engine import Engine
from msfnet.training.losses import make_loss
from msfnet.training.optim import WeightAverage, freeze, make_optimizer, set_lr
from msfnet.training.statistics import Sums, VideoProblems, peak_memory
from msfnet.training.timing import StepTimer
from msfnet.types import UserError


@dataclass(frozen=True)
class _Step:
    """A step that was queued on the device: its results can be read while the next one computes."""

    results: Tensor  # 2 P float64 on the CPU: mean loss and number of correct predictions of each micro-batch
    sizes: list[int]  # clips of each micro-batch
    copied: torch.cuda.Event | None  # completes when `results` has been copied from a GPU


class Learner:
    """A network with its optimizer and its augmentation, on the devices of an engine.

    Args:
        model: The network, whose batch norms are replaced where they are synchronized.
        recipe: All settings of the run.
        classes: The labels, in the order of the network's outputs.
        engine: Devices, precision and processes.
        class_counts: How many training videos each class has.
        transform: Applied to training clips before the augmentation: see `Augmentation`.

    Attributes:
        problems: Which videos could not be used as they are.
        train_sums, val_sums: What this process has counted in the epoch.
        timer: What the parts of the epoch's steps took in this process.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        classes: Sequence[str],
        engine: Engine,
        class_counts: Sequence[int],
        transform: Transform | None = None,
    ) -> None:
        self.recipe, self.settings, self.engine = recipe, recipe.train, engine
        self.preprocessing = recipe.preprocessing()
        self.augmentation = Augmentation(recipe, classes, transform)
        self.loss = make_loss(recipe.train, class_counts)
        self.problems, self.train_sums, self.val_sums = VideoProblems(), Sums(), Sums()
        self.timer = StepTimer(engine.device)
        self._queued: _Step | None = None
        model = channels_last(model)
        self.syncs_batchnorm = self.settings.sync_batchnorm and distributed.world_size() > 1
        if self.syncs_batchnorm:
            model = to_synced_batchnorm(model)
        freeze(model, recipe.optim.freeze)
        if self.settings.activation_checkpointing:
            model = checkpoint_blocks(model)
        self.model = model
        self.average = WeightAverage(model, self.settings.ema_decay) if self.settings.ema_decay else None
        self.own_optimizer = make_optimizer(model, recipe.optim, recipe.learning_rate())
        self.forward, self.optimizer = engine.setup(model, self.own_optimizer, compiled=self.settings.compile)

    # Training

    def begin_epoch(self) -> None:
        """Reset what is counted for an epoch."""
        self.train_sums = Sums()
        self.timer.reset()

    def record_problems(self, batch: Batch) -> tuple[int, str] | None:
        """Record the problems of a training batch.

        Returns:
            Number and reason of an unreadable video, if the recipe ends the run for it.
        """
        self.problems.unreadable |= batch.unreadable
        self.problems.warnings |= batch.warnings
        self.problems.padded |= dict.fromkeys(batch.padded, True)
        self.timer.add("worker", batch.worker_seconds)
        if self.recipe.data.on_unreadable_train == "skip":
            return None
        return next(iter(self.problems.unreadable.items()), None)

    def step(self, batch: Batch, clips: Sequence[int], epoch: int, number: int, lr_factor: float) -> bool:
        """Take an optimizer step, which a GPU may still be computing when this returns: see `finish_step`.

        Everything random is a pure function of seed, epoch and number, so that a resumed run repeats it.

        Args:
            batch: The clips of this process.
            clips: How many clips each process has in this step.
            epoch: Number of the epoch, from 0.
            number: Number of the step in the epoch, from 0.
            lr_factor: Factor on the peak learning rate.

        Returns:
            False if there was no step, since some process has too few clips for its batch statistics.
        """
        if min(clips) < (1 if self.syncs_batchnorm else 2):
            return False
        assert batch.clips is not None
        self.model.train()
        moment = (self.settings.seed * 10_007 + epoch) * 1_000_003 + number
        torch.manual_seed(moment + (distributed.rank() << 48))
        x, targets = self._augmented(batch, torch.Generator().manual_seed(moment))
        set_lr(self.own_optimizer, lr_factor)
        parts = torch.arange(len(x)).chunk(max(1, min(self.settings.micro_batches, min(clips) // 2)))
        losses, correct = [], []
        for i, part in enumerate(parts):
            rows, is_last = slice(int(part[0]), int(part[-1]) + 1), i == len(parts) - 1
            with self.engine.no_sync(self.forward, active=not is_last):
                with self.timer.measure("forward"):
                    logits = self.forward(x[rows])
                    _check_logits(logits, targets[rows], self.recipe.model.name)
                    loss = self.loss(logits, targets[rows])
                losses.append(loss.detach())
                correct.append((logits.argmax(1) == targets[rows].argmax(1)).sum())
                if is_last:  # before the backward pass, so that they can be read while that is computed
                    self._queued = _queue_results(losses, correct, [len(p) for p in parts])
                with self.timer.measure("backward"):  # processes average gradients: weighted, that is the mean of all
                    self.engine.backward(loss * (len(part) * distributed.world_size() / sum(clips)))
        with self.timer.measure("backward"):
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average:
                self.average.update(self.model)
        return True

    def finish_step(self) -> float:
        """Wait for the loss of the step that was taken last, and count it.

        Returns:
            The sum of the losses of this process's clips, which may be NaN; 0 if no step was taken since.
        """
        step, self._queued = self._queued, None
        if step is None:
            return 0.0
        if step.copied:
            step.copied.synchronize()
        loss, (losses, correct) = 0.0, step.results.tolist()
        for value, size in zip(losses, step.sizes, strict=True):
            loss += value * size
        self.train_sums.add(loss, sum(correct), sum(step.sizes))
        return loss

    def _augmented(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert batch.clips is not None
        with self.timer.measure("h2d"):
            clips = batch.clips[:, 0].to(self.engine.device, non_blocking=True)
            labels = batch.labels.to(self.engine.device, non_blocking=True)
        positions = [distributed.rank() + distributed.world_size() * position for position in batch.positions]
        with self.timer.measure("augment"):
            return self.augmentation(clips, labels, generator, positions)

    # Validation

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Validate within the block, in which every process holds the weights that are evaluated and saved.

        These are the weights after the last step, with batch statistics averaged over the processes; with
        train.ema_decay, they are the moving average of the weights.
        """
        self.val_sums = Sums()
        average_batch_statistics(self.model)
        if self.average is None:
            yield
            return
        with self.average.in_place_of(self.model):
            average_batch_statistics(self.model)
            yield

    @torch.inference_mode()
    def validate(self, batch: Batch) -> None:
        """Predict the center crop of one clip of each video; a video that cannot be read counts as wrong."""
        self.problems.val_unreadable |= batch.unreadable
        self.val_sums.n_unreadable += len(batch.unreadable)
        if batch.clips is None:
            return
        self.model.eval()
        clips, labels = batch.clips[:, 0].to(self.engine.device), batch.labels.to(self.engine.device)
        x = normalize(crop_views(clips, self.preprocessing.crop_size, 1)[:, 0], self.preprocessing)
        logits = self.engine.predict(self.model, x).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        self.val_sums.add(float(loss), float((logits.argmax(1) == labels).sum()), len(labels))

    def epoch_row(self) -> dict[str, float]:
        """Return the epoch's columns of metrics.csv: sums over all processes, times of the slowest one."""
        self.timer.finish()
        self.problems.merge_processes()
        seconds = distributed.gather(self.timer.seconds)
        row = {f"{part}_seconds": max(own[part] for own in seconds) for part in TIMED_PARTS}
        row |= self.train_sums.over_processes().means("train") | self.val_sums.over_processes().means("val")
        return row | peak_memory(self.engine.device)

    # State

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, for a checkpoint. All processes must call it together."""
        self.timer.finish()
        self.problems.merge_processes()
        buffers = {key: buffer.cpu() for key, buffer in self.model.named_buffers()}
        return {
            "model": self.model.state_dict(),
            "buffers": distributed.gather(buffers),  # batch statistics differ until the end of an epoch
            "optimizer": self.own_optimizer.state_dict(),
            "precision": self.engine.precision_state(),
            "average": self.average.state_dict() if self.average else None,
            "problems": self.problems.to_dict(),
            "train_sums": asdict(self.train_sums.over_processes()),
            "seconds": self.timer.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        After a run with another number of processes, training continues with batch statistics of the first one.
        """
        self.model.load_state_dict(state["model"])
        if len(state["buffers"]) == distributed.world_size():
            self.model.load_state_dict(state["buffers"][distributed.rank()], strict=False)
        self.own_optimizer.load_state_dict(state["optimizer"])
        self.engine.load_precision_state(state["precision"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.problems = VideoProblems(**state["problems"])
        self.train_sums = Sums() if distributed.rank() else Sums(**state["train_sums"])  # the first counts for all
        self.timer.seconds = dict(state["seconds"])


def _queue_results(losses: Sequence[Tensor], correct: Sequence[Tensor], sizes: list[int]) -> _Step:
    if losses[0].device.type != "cuda":
        return _Step(torch.stack([torch.stack(list(part)).cpu().double() for part in (losses, correct)]), sizes, None)
    results = torch.stack([torch.stack(list(part)).double() for part in (losses, correct)])
    on_cpu = torch.empty(results.shape, dtype=results.dtype, pin_memory=True).copy_(results, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return _Step(on_cpu, sizes, copied)


def _check_logits(logits: Tensor, targets: Tensor, name: str) -> None:
    """Refuse the output of a user's network that does not have a column for each class."""
    if logits.shape != targets.shape:
        raise UserError(
            f"{name}: expected logits N K of shape {tuple(targets.shape)}, found {tuple(logits.shape)}; give the "
            "network as many outputs as there are classes"
        )
