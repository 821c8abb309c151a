"""The training loop: the only file that knows the trainer library (Lightning)."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from msfnet.data.augment.augmentation import Augmentation
from msfnet.data.transforms import crop_views, normalise
from msfnet.recipe import Recipe
from msfnet.train.optim import lr_factor, make_optimizer

EpochRow = dict[str, float]
# Parts of an epoch: waiting for batches, moving them to the device, augmenting, the network; and what reading took in
# all processes, most of it while the network was at work.
TIMED = ("wait", "transfer", "augment", "network", "read")
OnEpoch = Callable[[EpochRow], None]
CHECKPOINT = "checkpoint.ckpt"  # in the run folder's last/


class BadVideoError(Exception):
    """A video that cannot be read, in a run whose recipe says to fail then; `index` is its number in its split."""

    def __init__(self, split: str, index: int, reason: str) -> None:
        super().__init__(reason)
        self.split, self.index = split, index


class Classifier(L.LightningModule):
    """A network in training: augments each batch on its device, and keeps account of what could not be read.

    `failures` maps indices of training videos that could not be read to the reason, `warnings` those of damaged ones
    that were read in part; a batch goes on without the former. `repeated` holds those shorter than the clip.
    `val_failures` are validation videos that could not be read. `seconds` says where the present epoch's time went.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, classes: Sequence[str]) -> None:
        super().__init__()
        # Batches come from uint8 frames with the channels last; kernels laid out alike spare every layer a copy.
        self.model = model
        for parameter in model.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        self.recipe = recipe
        self.preprocessing = recipe.preprocessing()
        self.augmentation = Augmentation(recipe, classes)
        self.train_loss, self.train_top1 = MeanMetric(), MeanMetric()
        self.val_loss, self.val_top1 = MeanMetric(), MeanMetric()
        self.failures: dict[int, str] = {}
        self.val_failures: dict[int, str] = {}
        self.warnings: dict[int, str] = {}
        self.repeated: set[int] = set()
        self.seconds = dict.fromkeys(TIMED, 0.0)

    def _generator(self, batch_idx: int) -> torch.Generator:
        """Random choices of one batch: a pure function of seed, epoch and batch, so that a resumed run repeats them."""
        moment = (self.recipe.train.seed * 10_007 + self.current_epoch) * 1_000_003 + batch_idx
        return torch.Generator().manual_seed(moment)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Adds to `seconds` what the block takes, on a GPU until the work it queued is done."""
        started = time.monotonic()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[part] += time.monotonic() - started

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        with self._timed("transfer"):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        self.failures |= dict(batch["failures"])
        self.warnings |= dict(batch["warnings"])
        self.repeated |= set(batch["repeated"])
        self.seconds["read"] += batch["read_seconds"]
        if self.failures and self.recipe.data.bad_videos == "fail":
            raise BadVideoError("train", *next(iter(self.failures.items())))
        if len(batch["labels"]) < 2:  # a lone clip gives the norms nothing to go by
            return None
        with self._timed("augment"):
            x, targets = self.augmentation(batch["clips"][:, 0], batch["labels"], self._generator(batch_idx))
        logits = self.model(x)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.train.label_smoothing)
        self.train_loss.update(loss.detach(), len(logits))
        self.train_top1.update((logits.argmax(1) == targets.argmax(1)).float())
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One centre view a video; a video that cannot be read counts as wrong."""
        self.val_failures |= dict(batch["failures"])
        if self.val_failures and self.recipe.data.bad_scored == "fail":
            raise BadVideoError("val", *next(iter(self.val_failures.items())))
        if batch["failures"]:
            self.val_top1.update(0.0, len(batch["failures"]))
        if batch["clips"] is None:
            return
        x = normalise(crop_views(batch["clips"][:, 0], self.preprocessing.size_px, 1)[:, 0], self.preprocessing)
        logits = self.model(x)
        self.val_loss.update(F.cross_entropy(logits, batch["labels"]), len(logits))
        self.val_top1.update((logits.argmax(1) == batch["labels"]).float())

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.recipe.optim)
        epochs = self.recipe.train.epochs
        steps = max(1, int(self.trainer.estimated_stepping_batches) // epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(self.recipe.optim, step / steps, epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EpochRows(Callback):
    """Hands one row of numbers to `on_epoch` after each epoch: what metrics.csv holds."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self.on_epoch = on_epoch
        self.started = self.moment = time.monotonic()
        self.lr = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        pl_module.seconds = dict.fromkeys(TIMED, 0.0)
        self.started = self.moment = time.monotonic()
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        self._count(pl_module, "wait")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *outputs: Any) -> None:
        self._count(pl_module, "network")

    def _count(self, pl_module: L.LightningModule, part: str) -> None:
        """The time since the last count is that of `part`."""
        assert isinstance(pl_module, Classifier)
        now = time.monotonic()
        pl_module.seconds[part] += now - self.moment
        self.moment = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        row: EpochRow = {"epoch": trainer.current_epoch + 1, "lr": self.lr}
        for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
            metric: MeanMetric = getattr(pl_module, name)
            if metric.update_called:
                row[name] = float(metric.compute())
            metric.reset()
        seconds = pl_module.seconds
        seconds["wait"] -= seconds["transfer"]  # which happened within it, as augmenting did within the network's time
        seconds["network"] -= seconds["augment"]
        row |= {f"{part}_seconds": seconds[part] for part in TIMED}
        row["seconds"] = time.monotonic() - self.started
        self.on_epoch(row)


def fit(
    classifier: Classifier,
    train_loader: DataLoader[Any],
    val_loader: DataLoader[Any] | None,
    last_folder: Path,
    on_epoch: OnEpoch,
    *,
    resume: bool,
) -> None:
    """Train for the recipe's epochs, leaving a checkpoint in `last_folder` after each; `resume` goes on from it.

    Raises KeyboardInterrupt when the user stops it.
    """
    train = classifier.recipe.train
    keep_last = ModelCheckpoint(
        last_folder, CHECKPOINT.removesuffix(".ckpt"), save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [EpochRows(on_epoch), keep_last]
    show_bar = sys.stderr.isatty()
    if show_bar:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    with quiet():
        trainer = L.Trainer(
            devices=1,
            precision=train.precision,
            max_epochs=train.epochs,
            callbacks=callbacks,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=show_bar,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        checkpoint = last_folder / CHECKPOINT if resume else None
        try:
            trainer.fit(classifier, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # the trainer's answer to Ctrl-C
            raise KeyboardInterrupt from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the trainer's own remarks to itself; what the user should know, msfnet says."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(_fabric|\.fabric|\.pytorch)?.*")
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            yield
    finally:
        logger.setLevel(level)
