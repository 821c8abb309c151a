"""One of many runs, trained to its end in its own folder: what each process of a sweep or a reproduction does.

This module is independent of how processes are started. All machines use the same file system.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msfnet.atomic_io import write_text
from msfnet.data.dataset import Dataset
from msfnet.experiments.trials import PlannedRun
from msfnet.run_folder import CHECKPOINT, FINISHED, LOG, WEIGHTS, can_resume
from msfnet.types import UserError, one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of one run. A fraction of a GPU means that other runs share it."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class RunStatus:
    """How a run ended.

    Args:
        name: Name of its folder.
        error: Why it failed, in one line; None if it finished.
        unreadable: Path -> reason, of videos that could not be read.
    """

    name: str
    error: str | None = None
    unreadable: dict[str, str] = field(default_factory=dict)


def finished_status(out: Path, name: str) -> RunStatus | None:
    """Return the status of the run in `out`/`name`, or None if it has not finished.

    Args:
        out: Folder of the run folders.
        name: Name of the run folder.
    """
    file = out / name / FINISHED
    return RunStatus(name, None, json.loads(file.read_text("utf-8"))["unreadable"]) if file.is_file() else None


def train_run(
    data: Dataset,
    run: PlannedRun,
    out: Path,
    working_folder: Path,
    resources: Resources,
    *,
    score_test: bool,
) -> RunStatus:
    """Train one run in `out`/NAME to its end, from its last checkpoint if there is one.

    Errors are logged to the run's log file and returned, never raised, so that the other runs continue.

    Args:
        data: The dataset.
        run: Name and recipe of the run.
        out: Folder of the run folders.
        working_folder: Folder that relative paths of the data and of the recipe refer to.
        resources: CPUs and GPUs that the run may use.
        score_test: Whether to evaluate on the test set at the end.
    """
    try:
        os.chdir(working_folder)
        folder = out / run.name
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return RunStatus(run.name, f"{error.strerror}: {error.filename}; all machines need the same file system")
    _limit_process(resources)
    with _log_to(folder / LOG):
        log.info("process %d on %s", os.getpid(), platform.node())
        try:
            unreadable = _train_or_resume(data, run, folder, score_test)
        except UserError as error:
            log.error("failed: %s", error)
            return RunStatus(run.name, one_line(error))
        except Exception as error:
            log.exception("failed")
            reason = one_line(error)
            return RunStatus(run.name, f"{type(error).__name__}: {reason[:200]} (traceback in {run.name}/{LOG})")
    write_text(folder / FINISHED, json.dumps({"unreadable": unreadable}, indent=2, ensure_ascii=False))
    return RunStatus(run.name, None, unreadable)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Append what msfnet logs within the block to a file."""
    handler = logging.FileHandler(file, encoding="utf-8")
    logger = logging.getLogger("msfnet")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def _train_or_resume(data: Dataset, run: PlannedRun, folder: Path, score_test: bool) -> dict[str, str]:
    """Return the videos that could not be read: path -> reason."""
    from msfnet.training.trainer import resume, train

    if can_resume(folder):
        log.info("resuming from the last checkpoint")
        return resume(folder, score_test=score_test).unreadable
    (folder / WEIGHTS).unlink(missing_ok=True)  # left by a run that was killed before its first checkpoint
    shutil.rmtree((folder / CHECKPOINT).parent, ignore_errors=True)
    return train(data, run.recipe, folder, score_test=score_test).unreadable


def _limit_process(resources: Resources) -> None:
    """Use one thread per CPU, so that runs side by side do not slow each other down, and no GPU unless one is given."""
    os.environ["OMP_NUM_THREADS"] = str(resources.cpus)  # inherited by the worker processes that read videos
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    torch.set_num_threads(resources.cpus)
