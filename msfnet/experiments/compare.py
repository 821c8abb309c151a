"""Finished runs as values, read from their folders. What is no finished run is named with the reason.

What tells runs apart: recipe keys, classes, and whether one is better than another or was lucky. No files here."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.inference.evaluation import RECIPE
from msfnet.models.checkpoint import WEIGHTS, read_header
from msfnet.models.registry import ModelSummary, summarize
from msfnet.recipe import load_recipe
from msfnet.report import EpochRows
from msfnet.training.history import METRICS, SCORES
from msfnet.training.report import read_epochs, read_scores, read_split
from msfnet.types import EvalResult, ScoredVideo, UserError


@dataclass(frozen=True)
class Run:
    """A finished run. `recipe` has its values under dotted keys; `scores` is None where it had no test videos."""

    folder: Path
    name: str  # its folder's path, as short as tells the runs apart
    recipe: dict[str, Any]
    history: EpochRows
    scores: EvalResult | None
    summary: ModelSummary

    @property
    def val_top1(self) -> float | None:
        return max((row["val_top1"] for row in self.history if "val_top1" in row), default=None)

    @property
    def test_top1(self) -> float | None:
        return self.scores.video.top1 if self.scores else None

    @property
    def balanced(self) -> float | None:
        return self.scores.mean_class_accuracy if self.scores else None

    @property
    def calibration_error(self) -> float | None:
        videos = [v for v in self.scores.videos if v.predicted is not None] if self.scores else []
        if not videos:
            return None
        return metrics.calibration(np.array([v.score for v in videos]), np.array([v.correct for v in videos])).error

    @property
    def epoch_seconds(self) -> float | None:
        """The median, which the first epoch with its decoding does not move."""
        seconds = [row["seconds"] for row in self.history if "seconds" in row]
        return median(seconds) if seconds else None

    @property
    def peak_memory_mib(self) -> float | None:
        return max((row["peak_memory_mib"] for row in self.history if "peak_memory_mib" in row), default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "seed": self.recipe["train.seed"],
            "epochs": len(self.history),
            "val_top1": self.val_top1,
            "test_top1": self.test_top1,
            "n_videos": self.scores.n_videos if self.scores else 0,
            "mean_class_accuracy": self.balanced,
            "calibration_error": self.calibration_error,
            "params": self.summary.params,
            "macs": self.summary.macs,
            "epoch_seconds": self.epoch_seconds,
            "peak_memory_mib": self.peak_memory_mib,
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
        summary = _summary(header["model"]["name"], len(header["classes"]), json.dumps(header["model"]["kwargs"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{WEIGHTS} does not say what its network is ({error})") from error
    return Run(folder, name, recipe.flat(), history, scores, summary)


@cache
def _summary(name: str, n_classes: int, kwargs: str) -> ModelSummary:
    return summarize(name, n_classes, **json.loads(kwargs))


SEED = "train.seed"
ASIDE = frozenset((SEED, "train.loggers", "data.num_workers", "data.cache"))  # what no score depends on but by chance
SIGNIFICANT = 0.05


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """The recipe keys whose values are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    return [key for key in keys if any(run.recipe.get(key) != runs[0].recipe.get(key) for run in runs)]


@dataclass(frozen=True)
class SeedGroup:
    """Runs whose recipes differ in the seed alone, as far as scores go."""

    runs: tuple[Run, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"runs": [str(run.folder) for run in self.runs], "n": len(self.runs)} | {
            name: {"mean": mean, "std": spread}
            for name, (mean, spread) in ((n, self.mean(n)) for n in ("val_top1", "test_top1", "balanced"))
        }

    def mean(self, name: str) -> tuple[float | None, float | None]:
        """Mean and standard deviation of a number of the runs; None where one does not have it."""
        values = [getattr(run, name) for run in self.runs]
        if any(value is None for value in values):
            return None, None
        return metrics.mean_and_std(values)


def seed_groups(runs: Sequence[Run]) -> list[SeedGroup]:
    """Groups of two runs or more, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr({key: value for key, value in run.recipe.items() if key not in ASIDE}), []).append(run)
    return [SeedGroup(tuple(group)) for group in groups.values() if len({r.recipe[SEED] for r in group}) > 1]


@dataclass(frozen=True)
class Duel:
    """Two runs on the videos that both were scored on: how many only one of them has correct."""

    first: Run
    second: Run
    n_videos: int
    both: int
    only_first: int
    only_second: int
    p: float

    @property
    def reading(self) -> str:
        """One sentence: which is better, if that can be said."""
        n = self.only_first + self.only_second
        if self.p >= SIGNIFICANT:
            return f"no difference can be told: they disagree on {n} videos, {self.only_first} to {self.only_second}"
        better, k = max((self.first, self.only_first), (self.second, self.only_second), key=lambda pair: pair[1])
        return f"{better.name} is better: it has {k} of the {n} videos correct that they disagree on"

    def to_dict(self) -> dict[str, Any]:
        counts = {key: getattr(self, key) for key in ("n_videos", "both", "only_first", "only_second", "p", "reading")}
        return {"first": str(self.first.folder), "second": str(self.second.folder)} | counts


def duels(runs: Sequence[Run]) -> list[Duel]:
    """The first run against each other one with which it shares scored videos; p is corrected for their number."""
    found = [duel for run in runs[1:] if (duel := _duel(runs[0], run))]
    adjusted = metrics.holm_correction([duel.p for duel in found])
    return [
        Duel(d.first, d.second, d.n_videos, d.both, d.only_first, d.only_second, p)
        for d, p in zip(found, adjusted, strict=True)
    ]


def _duel(first: Run, second: Run) -> Duel | None:
    own, other = _by_name(first), _by_name(second)
    pairs = [(own[key], other[key]) for key in own.keys() & other.keys()]
    if not pairs:
        return None
    counts = Counter((a.correct, b.correct) for a, b in pairs)
    only_first, only_second = counts[True, False], counts[False, True]
    p = metrics.sign_flip_test(np.array([int(a.correct) - int(b.correct) for a, b in pairs]))
    return Duel(first, second, len(pairs), counts[True, True], only_first, only_second, p)


def _by_name(run: Run) -> dict[tuple[str, ...], ScoredVideo]:
    """Videos by what stays when a data set is moved, their folder and name, if that tells them apart; else by path."""
    videos = run.scores.videos if run.scores else ()
    paths = [tuple(video.path.replace("\\", "/").split("/")) for video in videos]
    short = dict(zip((path[-2:] for path in paths), videos, strict=True))
    return short if len(short) == len(videos) else dict(zip(paths, videos, strict=True))


def class_rows(runs: Sequence[Run]) -> list[tuple[str, int, list[float | None]]]:
    """Of each class: label, videos in the first run that has it, top-1 in each run; largest difference first."""
    labels = dict.fromkeys(label for run in runs if run.scores for label in run.scores.per_class)
    rows = []
    for label in labels:
        found = [run.scores.per_class.get(label) if run.scores else None for run in runs]
        n = next(int(row["n"]) for row in found if row)
        rows.append((label, n, [row["top1"] if row else None for row in found]))
    return sorted(rows, key=lambda row: (-spread(row[2]), row[0]))


def spread(values: Sequence[float | None]) -> float:
    """Largest minus smallest of those that are there."""
    there = [value for value in values if value is not None]
    return max(there) - min(there)
