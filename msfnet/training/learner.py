"""A network in training: one step and one validation, with account of time, loss and what could not be read.

Knows no order of batches, no files and no signals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet import distributed
from msfnet.data.augment.augmentation import Augmentation
from msfnet.data.transforms import crop_views, normalize
from msfnet.models.zoo import channels_last
from msfnet.recipe import Recipe
from msfnet.training.batchnorm import average_batch_statistics, to_synced_batchnorm
from msfnet.training.checkpointing import checkpoint_blocks
from msfnet.training.ema import WeightAverage
from msfnet.training.engine import Engine
from msfnet.training.losses import make_loss
from msfnet.training.optim import freeze, make_optimizer, set_lr

# Parts of an epoch: waiting for batches, moving them to the device, augmenting, the network forward, backward with the
# optimizer's step; and what reading took in all processes, most of it while the network was at work.
TIMED = ("data", "h2d", "augment", "forward", "backward", "worker")


class BadVideoError(Exception):
    """A video that cannot be read, in a run whose recipe says to fail then; `index` is its number in its split."""

    def __init__(self, split: str, index: int, reason: str) -> None:
        super().__init__(reason)
        self.split, self.index = split, index


class DivergedError(Exception):
    """The loss is no number any more; `indices` are those of the batch's training videos."""

    def __init__(self, loss: float, indices: Sequence[int]) -> None:
        super().__init__(f"the loss is {loss}")
        self.indices = list(indices)


@dataclass
class Account:
    """What a process has seen: of the whole run, and of the present epoch alone. Numbers, so that it can be saved.

    `failures` maps indices of training videos that could not be read to the reason, `warnings` those of damaged ones
    that were read in part; a batch goes on without the former. `repeated` holds those shorter than the clip.
    `val_failures` are validation videos that could not be read. `sums` are of the epoch: losses, correct answers, clips.
    """

    failures: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)
    val_failures: dict[int, str] = field(default_factory=dict)
    padded: dict[int, bool] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TIMED, 0.0))

    def begin_epoch(self) -> None:
        self.sums, self.seconds = {}, dict.fromkeys(TIMED, 0.0)

    def add(self, part: str, loss: float, correct: float, clips: int) -> None:
        for name, value in (("loss", loss), ("top1", correct), ("clips", clips)):
            self.sums[f"{part}_{name}"] = self.sums.get(f"{part}_{name}", 0.0) + value

    def forget(self, part: str) -> None:
        self.sums = {name: value for name, value in self.sums.items() if not name.startswith(part)}

    def share_findings(self) -> None:
        """Give every process what all have found of videos."""
        for name in ("failures", "warnings", "val_failures", "padded"):
            for found in distributed.gather(getattr(self, name)):
                getattr(self, name).update(found)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Account:
        return cls(**{f.name: values[f.name] for f in fields(cls)})


class Learner:
    """A network, its optimizer and its augmentation on the devices of `engine`."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, classes: Sequence[str], engine: Engine, class_counts: Sequence[int]
    ) -> None:
        """`class_counts` are the training videos of each class."""
        self.recipe, self.train, self.engine = recipe, recipe.train, engine
        self.preprocessing = recipe.preprocessing()
        self.augmentation = Augmentation(recipe, classes)
        self.loss = make_loss(recipe.train, class_counts)
        self.account = Account()
        model = channels_last(model)
        self.to_synced_batchnorm = self.train.sync_batchnorm and distributed.world_size() > 1
        if self.to_synced_batchnorm:
            model = to_synced_batchnorm(model)
        freeze(model, recipe.optim.freeze)
        if self.train.activation_checkpointing:
            model = checkpoint_blocks(model)
        self.model = model
        self.average = WeightAverage(model, self.train.ema_decay) if self.train.ema_decay else None
        self.own_optimizer = make_optimizer(model, recipe.optim, recipe.learning_rate())
        self.forward, self.optimizer = engine.setup(model, self.own_optimizer, compiled=self.train.compile)

    # Training

    def step(self, batch: dict[str, Any], epoch: int, number: int, lr_factor: float) -> float | None:
        """Learn from the whole batch `number` of an epoch; returns its mean loss over all processes.

        None, and nothing is learned, where some process has too few clips for its norms to go by.
        All that is random is a pure function of seed, epoch and batch, so that a resumed run repeats it.

        Raises DivergedError, before the network has changed, when the loss is no number; BadVideoError as the recipe
        says.
        """
        bad = self._note(batch)
        self.model.train()
        n = len(batch["labels"])
        shares = distributed.each(-1 if bad else n)  # an error of one process must be that of all, or these would wait
        if min(shares) < 0:
            raise BadVideoError("train", *next(found for found in distributed.gather(bad) if found))
        if min(shares) < (1 if self.to_synced_batchnorm else 2):
            return None
        moment = (self.train.seed * 10_007 + epoch) * 1_000_003 + number
        torch.manual_seed(moment + (distributed.rank() << 48))
        x, targets = self._augmented(batch, torch.Generator().manual_seed(moment))
        set_lr(self.own_optimizer, lr_factor)
        loss, correct = 0.0, 0.0
        parts = torch.arange(n).chunk(max(1, min(self.train.micro_batches, int(min(shares)) // 2)))
        for i, part in enumerate(parts):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            with self.engine.without_exchange(self.forward, but=i == len(parts) - 1):
                with self.timed("forward"):
                    logits = self.forward(x[rows])
                    of_part = self.loss(logits, targets[rows])
                    value = float(of_part.detach())
                if lost := [v for v in distributed.each(value) if v - v != 0]:  # infinite, or no number
                    raise DivergedError(lost[0], [i for own in distributed.gather(batch["indices"]) for i in own])
                with self.timed("backward"):  # processes average their gradients: weighed, that is the whole mean
                    self.engine.backward(of_part * (len(part) * distributed.world_size() / sum(shares)))
            loss += value * len(part)
            correct += float((logits.argmax(1) == targets[rows].argmax(1)).sum())
        with self.timed("backward"):
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average:
                self.average.update(self.model)
        self.account.add("train", loss, correct, n)
        return distributed.add_numbers(loss)[0] / sum(shares)

    def _note(self, batch: dict[str, Any]) -> tuple[int, str] | None:
        """Account for what was read; returns a video that could not be, where the recipe says to fail then."""
        account = self.account
        account.failures |= dict(batch["failures"])
        account.warnings |= dict(batch["warnings"])
        account.padded |= dict.fromkeys(batch["padded"], True)
        account.seconds["worker"] += batch["read_seconds"]
        fails = account.failures and self.recipe.data.on_unreadable_train == "fail"
        return next(iter(account.failures.items())) if fails else None

    def _augmented(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        with self.timed("h2d"):
            clips = batch["clips"][:, 0].to(self.engine.device, non_blocking=True)
            labels = batch["labels"].to(self.engine.device, non_blocking=True)
        places = [distributed.rank() + distributed.world_size() * place for place in batch["places"]]
        with self.timed("augment"):
            return self.augmentation(clips, labels, generator, places)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds to the account what the block takes, on a GPU until the work it queued is done."""
        started = time.monotonic()
        yield
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize()
        self.account.seconds[part] += time.monotonic() - started

    # Validation

    @contextmanager
    def validating(self) -> Iterator[None]:
        """After the last step of an epoch: within, every process holds the network that is scored and kept.

        With train.ema_decay that is the average of the weights.
        """
        self.account.forget("val")
        average_batch_statistics(self.model)
        with self.average.in_place_of(self.model) if self.average else nullcontext():
            average_batch_statistics(self.model)
            yield

    @torch.inference_mode()
    def validate(self, batch: dict[str, Any]) -> None:
        """Score one center view a video; a video that cannot be read counts as wrong."""
        account = self.account
        account.val_failures |= dict(batch["failures"])
        account.add("val", 0.0, 0.0, len(batch["failures"]))
        if batch["clips"] is None:
            return
        self.model.eval()
        clips, labels = batch["clips"][:, 0].to(self.engine.device), batch["labels"].to(self.engine.device)
        x = normalize(crop_views(clips, self.preprocessing.crop_size, 1)[:, 0], self.preprocessing)
        logits = self.engine.call(self.model, x).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        account.add("val", float(loss), float((logits.argmax(1) == labels).sum()), len(labels))
        account.add("val_read", 0.0, 0.0, len(labels))

    def numbers(self) -> dict[str, float]:
        """Mean losses, top-1 and seconds of the epoch: of all processes, the seconds of whichever took longest.

        Raises BadVideoError for validation videos, as the recipe says.
        """
        self.account.share_findings()
        if self.account.val_failures and self.recipe.data.on_unreadable_eval == "fail":
            raise BadVideoError("val", *next(iter(self.account.val_failures.items())))
        sums = self._sums()
        seconds = distributed.gather(self.account.seconds)
        row = {f"{part}_seconds": max(own[part] for own in seconds) for part in TIMED}
        for part, counted in (("train", "train"), ("val", "val_read")):
            if sums.get(f"{counted}_clips"):
                row[f"{part}_loss"] = sums[f"{part}_loss"] / sums[f"{counted}_clips"]
            if sums.get(f"{part}_clips"):
                row[f"{part}_top1"] = sums[f"{part}_top1"] / sums[f"{part}_clips"]
        return row | peak_memory(self.engine.device)

    def _sums(self) -> dict[str, float]:
        """The account's sums over all processes."""
        every = distributed.gather(self.account.sums)
        return {name: sum(own.get(name, 0.0) for own in every) for name in sorted(set().union(*every))}

    # To go on from

    def state(self) -> dict[str, Any]:
        """All that the next step depends on. Every process must ask, and each gets that of all."""
        self.account.share_findings()
        buffers = {key: buffer.cpu() for key, buffer in self.model.named_buffers()}
        return {
            "model": self.model.state_dict(),
            "buffers": list(distributed.gather(buffers)),  # running statistics differ until the epoch's end
            "optimizer": self.own_optimizer.state_dict(),
            "precision": self.engine.precision_state(),
            "average": self.average.state_dict() if self.average else None,
            "account": self.account.to_dict() | {"sums": self._sums()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Also of a run by another number of processes, which then goes on a little differently."""
        rank = distributed.rank()
        self.model.load_state_dict(state["model"])
        if len(state["buffers"]) == distributed.world_size():
            self.model.load_state_dict(state["buffers"][rank], strict=False)
        self.own_optimizer.load_state_dict(state["optimizer"])
        self.engine.load_precision_state(state["precision"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.account = Account.from_dict(state["account"])
        if rank:  # the first process has the sums of all
            self.account.sums = {}


def peak_memory(device: torch.device) -> dict[str, float]:
    """`peak_memory_mib`: the most that this process has held, on its GPU if it has one. Empty where none tells: Windows."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    try:
        import resource
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
