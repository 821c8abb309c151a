"""Where a run can be followed live: TensorBoard always, and the trackers that its recipe names (Lightning's loggers).

Each gets the recipe, every step's loss and learning rate, and every epoch's row of metrics.csv. Only a tracker that is
named is imported, and only such a one may talk to the network: as its own settings say.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from msfnet.files import write_text
from msfnet.recipe import Recipe
from msfnet.types import UserError

LOGS, RUN_ID = "logs", "run-id"  # in the run folder: event files; what trackers know the run by
PROJECT = "msfnet"


@dataclass(frozen=True)
class Tracker:
    """How to make the logger of a run folder, and the package that it needs, with its module; none for ours."""

    make: Callable[[Path], Logger]
    package: str | None = None
    module: str | None = None


def _csv(folder: Path) -> Logger:
    # A resumed run gets a folder of its own there.
    return CSVLogger(folder / LOGS, name="csv", flush_logs_every_n_steps=10)


def _wandb(folder: Path) -> Logger:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandbLogger(folder.name, folder / LOGS, project=project, id=_run_id(folder), resume="allow")


def _mlflow(folder: Path) -> Logger:
    """To the server or store that MLFLOW_TRACKING_URI names, else to a data base in the run folder."""
    logs, experiment = (folder / LOGS).resolve(), os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return MLFlowLogger(experiment, folder.name, tracking_uri=uri)
    logs.mkdir(parents=True, exist_ok=True)
    store, artifacts = f"sqlite:///{(logs / 'mlflow.db').as_posix()}", (logs / "mlflow").as_uri()
    return MLFlowLogger(experiment, folder.name, tracking_uri=store, artifact_location=artifacts)


def _comet(folder: Path) -> Logger:
    project = os.environ.get("COMET_PROJECT_NAME", PROJECT)
    return CometLogger(project=project, experiment_key=_run_id(folder), name=folder.name)


TRACKERS = {
    "csv": Tracker(_csv),
    "wandb": Tracker(_wandb, "wandb", "wandb"),
    "mlflow": Tracker(_mlflow, "mlflow", "mlflow"),
    "comet": Tracker(_comet, "comet-ml", "comet_ml"),
}


def require_trackers(names: Sequence[str]) -> None:
    """Raises UserError with the install command when the package of one is not there."""
    for name in names:
        tracker = TRACKERS[name]
        if tracker.module and importlib.util.find_spec(tracker.module) is None:
            raise UserError(f"train.logger names {name}, whose package is not there: pip install {tracker.package}")


def make_loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    """TensorBoard's, whose event files lie in FOLDER/logs, and those that the recipe names."""
    names = tuple(dict.fromkeys(recipe.train.logger))
    require_trackers(names)
    tensorboard = TensorBoardLogger(folder, name=LOGS, version="", default_hp_metric=False)
    return [tensorboard, *(TRACKERS[name].make(folder) for name in names)]


class StepLog(Callback):
    """Hands the recipe, and every step's loss and learning rate, to the trainer's loggers.

    The loss is the mean over the batches that the optimiser's step was made of, in this process.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.lr = 0.0
        self.step = 0
        self.losses: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.recipe.flat())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step  # above zero in a run that goes on

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *batch: Any) -> None:
        """`outputs` is what the training step returned: a loss, or a mapping that has one."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self.losses.append(loss.detach())
        if trainer.global_step == self.step or not self.losses:
            return
        numbers = {"step/lr": self.lr, "step/loss": float(torch.stack(self.losses).mean())}
        self.step, self.losses = trainer.global_step, []
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=self.step)


def log_epoch(trainer: L.Trainer, row: Mapping[str, float]) -> None:
    """Hand an epoch's row to the trainer's loggers, at the step that it ended with."""
    numbers = {f"epoch/{key}": value for key, value in row.items() if key != "epoch"}
    for logger in trainer.loggers:
        logger.log_metrics(numbers, step=trainer.global_step)


def _run_id(folder: Path) -> str:
    """What trackers know the run by, so that a resumed run goes on in the same place: 32 hexadecimal digits."""
    file = folder / LOGS / RUN_ID
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, uuid.uuid4().hex)
    return file.read_text("utf-8")
