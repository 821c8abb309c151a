"""Finished runs, read from their folders. Whatever is not a finished run is reported with the reason."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.models.checkpoint import read_header
from msfnet.models.registry import ModelSummary, summarize
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import EpochRows
from msfnet.run_folder import RECIPE, SCORES, WEIGHTS, require_run
from msfnet.types import EvalResult, UserError, one_line


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended.

    Args:
        folder: The run folder.
        name: The shortest path that distinguishes it from the runs it was read with.
        recipe: What it was trained with.
        history: The rows of metrics.csv.
        result: Evaluation on the test set; None if the dataset has none.
        model: Parameters and multiply-adds of the network.
    """

    folder: Path
    name: str
    recipe: Recipe
    history: EpochRows
    result: EvalResult | None
    model: ModelSummary

    @property
    def val_top1(self) -> float | None:
        """The highest of all epochs."""
        return max((row["val_top1"] for row in self.history if "val_top1" in row), default=None)

    @property
    def test_top1(self) -> float | None:
        """Video accuracy on the test set."""
        return self.result.video.top1 if self.result else None

    @property
    def mean_class_accuracy(self) -> float | None:
        """Mean over classes of the video accuracy on the test set."""
        return self.result.mean_class_accuracy if self.result else None

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error on the test set."""
        videos = [v for v in self.result.videos if v.predicted is not None] if self.result else []
        if not videos:
            return None
        return metrics.calibration(np.array([v.score for v in videos]), np.array([v.correct for v in videos])).error

    @property
    def epoch_seconds(self) -> float | None:
        """The median over epochs, which the first epoch does not affect, although it decodes all videos."""
        seconds = [row["seconds"] for row in self.history if "seconds" in row]
        return median(seconds) if seconds else None

    @property
    def peak_memory_mib(self) -> float | None:
        """The highest of all epochs."""
        return max((row["peak_memory_mib"] for row in self.history if "peak_memory_mib" in row), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a run in the output of `msfnet compare --json`."""
        return {
            "folder": str(self.folder),
            "seed": self.recipe.train.seed,
            "epochs": len(self.history),
            "val_top1": self.val_top1,
            "test_top1": self.test_top1,
            "n_videos": self.result.n_videos if self.result else 0,
            "mean_class_accuracy": self.mean_class_accuracy,
            "calibration_error": self.calibration_error,
            "params": self.model.params,
            "macs": self.model.macs,
            "epoch_seconds": self.epoch_seconds,
            "peak_memory_mib": self.peak_memory_mib,
        }


def read_runs(patterns: Sequence[str]) -> tuple[list[FinishedRun], dict[str, str]]:
    """Read the finished runs among folders.

    Args:
        patterns: Folders or glob patterns.

    Returns:
        The runs, sorted by test accuracy and then by validation accuracy, and the folders without a finished run with
        the reason.

    Raises:
        UserError: No folder has a finished run.
    """
    folders = [Path(path) for pattern in patterns for path in (sorted(glob.glob(pattern)) or [pattern])]
    folders = list(dict.fromkeys(folders))
    runs, skipped = [], {}
    for folder, name in zip(folders, _short_names(folders), strict=True):
        try:
            runs.append(read_finished_run(folder, name))
        except UserError as error:
            skipped[str(folder)] = one_line(error)
    if not runs:
        first = next(iter(skipped.items()), None)
        found = f"{first[0]}: {first[1]}" if first else "no folder"
        raise UserError(f"expected folders of finished runs, found none ({found})")
    runs.sort(key=lambda run: (-(run.test_top1 or 0), -(run.val_top1 or 0), run.name))
    return runs, skipped


def read_finished_run(folder: Path, name: str) -> FinishedRun:
    """Read a run folder.

    Args:
        folder: The run folder.
        name: What to call the run.

    Raises:
        UserError: The folder has no run, or one that is unfinished, damaged or written by another version.
    """
    run = require_run(folder)
    try:
        recipe, history, result, split = load_recipe(folder / RECIPE), run.history, run.result, run.split
    except OSError as error:
        raise UserError(f"expected a run in {folder}, found files that cannot be read ({error})") from error
    if len(history) < recipe.train.epochs:
        raise UserError(f"expected a finished run, found {len(history)} of {recipe.train.epochs} epochs")
    if result is None and any(video.split == "test" for video in split):
        raise UserError(f"expected a finished run, found no {SCORES} although there are test videos")
    header = read_header(folder / WEIGHTS)
    try:
        model = network_summary(header["model"]["name"], len(header["classes"]), header["model"]["kwargs"])
    except (KeyError, TypeError) as error:
        raise UserError(f"expected the name of the network in {WEIGHTS}, found none ({error})") from error
    return FinishedRun(folder, name, recipe, history, result, model)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the paths without the folder that all of them are in."""
    paths = [folder.resolve() for folder in folders]
    try:
        root = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # no folders, or folders on different drives
        return [folder.as_posix() for folder in folders]
    return [path.relative_to(root).as_posix() for path in paths]


def network_summary(name: str, num_classes: int, kwargs: Mapping[str, Any]) -> ModelSummary:
    """Return parameters and multiply-adds of a network, which are counted once for all runs of the same network.

    Args:
        name: Name of the network.
        num_classes: Number of classes.
        kwargs: Further arguments of `create_model`.

    Raises:
        UserError: There is no such network, or it does not take these arguments.
    """
    return _summary(name, num_classes, json.dumps(dict(kwargs), sort_keys=True))


@cache
def _summary(name: str, num_classes: int, kwargs: str) -> ModelSummary:
    return summarize(name, num_classes, **json.loads(kwargs))
