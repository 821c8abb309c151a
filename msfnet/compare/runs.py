"""Finished runs as values, read from their folders. What is no finished run is named with the reason."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.evaluate import RECIPE
from msfnet.models.checkpoint import WEIGHTS, read_header
from msfnet.models.registry import ModelSummary, summarise
from msfnet.recipe import load_recipe
from msfnet.report import Rows
from msfnet.train.folder import METRICS, SCORES
from msfnet.train.page import read_epochs, read_scores, read_split
from msfnet.types import Scores, UserError


@dataclass(frozen=True)
class Run:
    """A finished run. `recipe` has its values under dotted keys; `scores` is None where it had no test videos."""

    folder: Path
    name: str  # its folder's path, as short as tells the runs apart
    recipe: dict[str, Any]
    history: Rows
    scores: Scores | None
    summary: ModelSummary

    @property
    def val_top1(self) -> float | None:
        return max((row["val_top1"] for row in self.history if "val_top1" in row), default=None)

    @property
    def test_top1(self) -> float | None:
        return self.scores.video["top1"] if self.scores else None

    @property
    def balanced(self) -> float | None:
        return self.scores.balanced_top1 if self.scores else None

    @property
    def calibration_error(self) -> float | None:
        videos = [v for v in self.scores.videos if v.predicted is not None] if self.scores else []
        if not videos:
            return None
        return metrics.calibration(np.array([v.score for v in videos]), np.array([v.right for v in videos])).error

    @property
    def epoch_seconds(self) -> float | None:
        """The median, which the first epoch with its decoding does not move."""
        seconds = [row["seconds"] for row in self.history if "seconds" in row]
        return median(seconds) if seconds else None

    @property
    def memory_mb(self) -> float | None:
        return max((row["memory_mb"] for row in self.history if "memory_mb" in row), default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "seed": self.recipe["train.seed"],
            "epochs": len(self.history),
            "val_top1": self.val_top1,
            "test_top1": self.test_top1,
            "n_videos": self.scores.n_videos if self.scores else 0,
            "balanced_top1": self.balanced,
            "calibration_error": self.calibration_error,
            "params": self.summary.params,
            "macs": self.summary.macs,
            "epoch_seconds": self.epoch_seconds,
            "memory_mb": self.memory_mb,
        }


def read_runs(named: Sequence[str]) -> tuple[list[Run], dict[str, str]]:
    """The finished runs among folders or patterns, best first, and the others: folder -> why it is left out.

    Raises UserError when none is left.
    """
    folders = [Path(path) for pattern in named for path in (sorted(glob.glob(pattern)) or [pattern])]
    folders = list(dict.fromkeys(folders))
    runs, skipped = [], {}
    for folder, name in zip(folders, _names(folders), strict=True):
        try:
            runs.append(read_run(folder, name))
        except UserError as error:
            skipped[str(folder)] = " ".join(str(error).split())
    if not runs:
        first = next(iter(skipped.items()), None)
        found = f"{first[0]}: {first[1]}" if first else "no folder"
        raise UserError(f"expected folders of finished runs, found none ({found})")
    runs.sort(key=lambda run: (-(run.test_top1 or 0), -(run.val_top1 or 0), run.name))
    return runs, skipped


def _names(folders: Sequence[Path]) -> list[str]:
    """Their paths without what all of them begin with."""
    paths = [folder.resolve() for folder in folders]
    try:
        root = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # none at all, or on several drives
        return [folder.as_posix() for folder in folders]
    return [path.relative_to(root).as_posix() for path in paths]


def read_run(folder: Path, name: str) -> Run:
    """Raises UserError for a folder without a run, an unfinished run, a damaged one, and one of another version."""
    if not (folder / RECIPE).is_file() or not (folder / METRICS).is_file():
        raise UserError(f"no run: it has no {RECIPE} or no {METRICS}")
    try:
        recipe, history, scores = load_recipe(str(folder / RECIPE)), read_epochs(folder), read_scores(folder)
        split = read_split(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"it cannot be read ({error})") from error
    if len(history) < recipe.train.epochs:
        raise UserError(f"unfinished: {len(history)} of {recipe.train.epochs} epochs")
    if scores is None and any(part == "test" for _, part in split):
        raise UserError(f"unfinished: its test videos are not scored, there is no {SCORES}")
    header = read_header(folder / WEIGHTS)
    try:
        summary = _summary(header["model"]["name"], len(header["classes"]), json.dumps(header["model"]["arguments"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{WEIGHTS} does not say what its network is ({error})") from error
    return Run(folder, name, recipe.flat(), history, scores, summary)


@cache
def _summary(name: str, n_classes: int, arguments: str) -> ModelSummary:
    return summarise(name, n_classes, **json.loads(arguments))
