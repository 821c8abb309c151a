"""Differences between finished runs: variation over seeds, paired comparisons, and accuracy per class.

Pure functions of runs: no file is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.experiments.runs import FinishedRun
from msfnet.types import ScoredVideo

SEED = "train.seed"
# Recipe keys in which runs of one seed group may differ: they do not affect the results systematically.
IRRELEVANT_KEYS = frozenset((SEED, "train.loggers", "data.num_workers", "data.cache"))
SEED_STATISTICS = ("val_top1", "test_top1", "mean_class_accuracy")  # attributes of a run


@dataclass(frozen=True)
class SeedGroup:
    """Runs whose recipes differ in the seed only."""

    runs: tuple[FinishedRun, ...]

    def mean_and_std(self, attribute: str) -> tuple[float | None, float | None]:
        """Return mean and sample standard deviation over the runs; None if a run does not have the value.

        Args:
            attribute: A numeric attribute of the runs.
        """
        values = [getattr(run, attribute) for run in self.runs]
        if any(value is None for value in values):
            return None, None
        return metrics.mean_and_std(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a group in the output of `msfnet compare --json`."""
        statistics = {
            name: dict(zip(("mean", "std"), self.mean_and_std(name), strict=True)) for name in SEED_STATISTICS
        }
        return {"runs": [str(run.folder) for run in self.runs], "n": len(self.runs)} | statistics


def seed_groups(runs: Sequence[FinishedRun]) -> list[SeedGroup]:
    """Return the groups of two or more runs that differ in the seed only, in the order of their first run."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        relevant = {key: value for key, value in run.recipe.flat().items() if key not in IRRELEVANT_KEYS}
        groups.setdefault(repr(relevant), []).append(run)
    return [SeedGroup(tuple(group)) for group in groups.values() if len({r.recipe.train.seed for r in group}) > 1]


@dataclass(frozen=True)
class PairedComparison:
    """Two runs on the test videos that they share.

    Args:
        first: One run.
        second: The other run.
        n_videos: Number of shared videos.
        both_correct: Number of videos that both predict correctly.
        only_first: Number of videos that only the first predicts correctly.
        only_second: Number of videos that only the second predicts correctly.
        p: p-value of McNemar's exact test.
    """

    first: FinishedRun
    second: FinishedRun
    n_videos: int
    both_correct: int
    only_first: int
    only_second: int
    p: float

    @property
    def conclusion(self) -> str:
        """Which run is better, if the difference is significant."""
        if self.p >= metrics.SIGNIFICANCE_LEVEL:
            return "no significant difference"
        better = self.first if self.only_first > self.only_second else self.second
        return f"{better.name} is significantly better"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a pair in the output of `msfnet compare --json`."""
        return {
            "first": str(self.first.folder),
            "second": str(self.second.folder),
            "n_videos": self.n_videos,
            "both_correct": self.both_correct,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p": self.p,
            "conclusion": self.conclusion,
        }


def compare_with_first(runs: Sequence[FinishedRun]) -> list[PairedComparison]:
    """Compare the first run with each other run that shares test videos with it.

    The p-values are corrected for the number of comparisons (Holm).
    """
    found = [comparison for run in runs[1:] if (comparison := _compare(runs[0], run))]
    corrected = metrics.holm_correction([comparison.p for comparison in found])
    return [replace(comparison, p=p) for comparison, p in zip(found, corrected, strict=True)]


def _compare(first: FinishedRun, second: FinishedRun) -> PairedComparison | None:
    """Compare two runs; None if they share no video. The p-value is that of a single test."""
    first_videos, second_videos = _videos(first), _videos(second)
    shared = [key for key in first_videos if key in second_videos]
    if not shared:
        return None
    correct = np.array([(first_videos[key].correct, second_videos[key].correct) for key in shared], dtype=np.int64)
    differences = correct[:, 0] - correct[:, 1]
    return PairedComparison(
        first,
        second,
        n_videos=len(shared),
        both_correct=int((correct.sum(1) == 2).sum()),
        only_first=int((differences == 1).sum()),
        only_second=int((differences == -1).sum()),
        p=metrics.sign_flip_test(differences),
    )


def _videos(run: FinishedRun) -> dict[tuple[str, ...], ScoredVideo]:
    """Return test videos by folder and name, which stay when a dataset is moved; by path if these are not unique."""
    videos = run.result.videos if run.result else ()
    paths = [tuple(video.path.replace("\\", "/").split("/")) for video in videos]
    short = dict(zip((path[-2:] for path in paths), videos, strict=True))
    return short if len(short) == len(videos) else dict(zip(paths, videos, strict=True))


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy on one class in several runs.

    Args:
        label: The class.
        n_videos: Its test videos in the first run that has any.
        top1: Video accuracy in each run; None for a run without videos of the class.
    """

    label: str
    n_videos: int
    top1: tuple[float | None, ...]

    @property
    def difference(self) -> float:
        """The highest accuracy minus the lowest."""
        known = [top1 for top1 in self.top1 if top1 is not None]
        return max(known) - min(known)


def accuracy_per_class(runs: Sequence[FinishedRun]) -> list[ClassAccuracy]:
    """Return the accuracy of each run on each class, largest difference between runs first."""
    labels = dict.fromkeys(label for run in runs if run.result for label in run.result.per_class)
    rows = []
    for label in labels:
        found = [run.result.per_class.get(label) if run.result else None for run in runs]
        n_videos = next(int(own["n"]) for own in found if own)
        rows.append(ClassAccuracy(label, n_videos, tuple(own["top1"] if own else None for own in found)))
    return sorted(rows, key=lambda row: (-row.difference, row.label))
