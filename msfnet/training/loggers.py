"""Experiment trackers: TensorBoard always, and those that the recipe names, through Lightning's loggers.

Each gets the recipe, loss and learning rate of every step, and every row of metrics.csv. Only trackers that the recipe
names are imported, and only they may use the network, as their own settings say.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from msfnet import distributed
from msfnet.atomic_io import write_text
from msfnet.recipe import Recipe
from msfnet.run_folder import LOGS
from msfnet.types import UserError

RUN_ID = "run-id"  # in the folder of the logs: the identifier of the run in its trackers
PROJECT = "msfnet"


@dataclass(frozen=True)
class Tracker:
    """How to create the logger of a run folder, and the package and module that it needs; None for our own."""

    make: Callable[[Path], Logger]
    package: str | None = None
    module: str | None = None


def _csv(folder: Path) -> Logger:
    return CSVLogger(folder / LOGS, name="csv", flush_logs_every_n_steps=10)  # in a new folder after each resume


def _wandb(folder: Path) -> Logger:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandbLogger(folder.name, folder / LOGS, project=project, id=_run_id(folder), resume="allow")


def _mlflow(folder: Path) -> Logger:
    """Log to the server or store that MLFLOW_TRACKING_URI names, else to a database in the run folder."""
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
    """Raise UserError with the install command if the package of a tracker is not installed."""
    for name in names:
        tracker = TRACKERS[name]
        if tracker.module and importlib.util.find_spec(tracker.module) is None:
            raise UserError(
                f"train.loggers names {name}, whose package is not installed; run pip install {tracker.package}"
            )


def make_loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    """Create the loggers of a run: TensorBoard's and those that the recipe names.

    Raises:
        UserError: The package of one is not installed.
    """
    names = tuple(dict.fromkeys(recipe.train.loggers))
    require_trackers(names)
    tensorboard = TensorBoardLogger(folder, name=LOGS, version="", default_hp_metric=False)
    return [tensorboard, *(TRACKERS[name].make(folder) for name in names)]


@contextmanager
def run_loggers(recipe: Recipe, folder: Path) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """Yield a function that logs numbers and the steps taken so far to all loggers of a run, in the first process."""
    if distributed.rank():
        yield lambda numbers, step: None
        return
    loggers, status = make_loggers(recipe, folder), "failed"

    def log(numbers: Mapping[str, float], step: int) -> None:
        for logger in loggers:
            logger.log_metrics(dict(numbers), step=step)

    for logger in loggers:
        logger.log_hyperparams(recipe.flat())
    try:
        yield log
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)


def _run_id(folder: Path) -> str:
    """Return the identifier of the run in its trackers, by which a resumed run continues there."""
    file = folder / LOGS / RUN_ID
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, uuid.uuid4().hex)
    return file.read_text("utf-8")
