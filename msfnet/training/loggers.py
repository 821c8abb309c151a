"""Where a run can be followed live: TensorBoard always, and the trackers that its recipe names (Lightning's loggers).

Each gets the recipe, every step's loss and learning rate, and every epoch's row of metrics.csv. Only a tracker that is
named is imported, and only such a one may talk to the network: as its own settings say.
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
            raise UserError(f"train.loggers names {name}, whose package is not there: pip install {tracker.package}")


def make_loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    """TensorBoard's, whose event files lie in FOLDER/logs, and those that the recipe names."""
    names = tuple(dict.fromkeys(recipe.train.loggers))
    require_trackers(names)
    tensorboard = TensorBoardLogger(folder, name=LOGS, version="", default_hp_metric=False)
    return [tensorboard, *(TRACKERS[name].make(folder) for name in names)]


@contextmanager
def run_log(recipe: Recipe, folder: Path) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """All loggers of a run as one function, which takes numbers and how many steps were done. One process's job."""
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
    """What trackers know the run by, so that a resumed run goes on in the same place: 32 hexadecimal digits."""
    file = folder / LOGS / RUN_ID
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, uuid.uuid4().hex)
    return file.read_text("utf-8")
