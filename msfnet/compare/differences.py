"""What tells runs apart: recipe keys, classes, and whether one is better than another or was lucky. No files here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msfnet import metrics
from msfnet.compare.runs import Run
from msfnet.types import ScoredVideo

SEED = "train.seed"
ASIDE = frozenset((SEED, "train.logger", "data.workers", "data.cache"))  # what no score depends on but by chance
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
        return metrics.mean_and_spread(values)


def seed_groups(runs: Sequence[Run]) -> list[SeedGroup]:
    """Groups of two runs or more, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr({key: value for key, value in run.recipe.items() if key not in ASIDE}), []).append(run)
    return [SeedGroup(tuple(group)) for group in groups.values() if len({r.recipe[SEED] for r in group}) > 1]


@dataclass(frozen=True)
class Duel:
    """Two runs on the videos that both were scored on: how many only one of them has right."""

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
        return f"{better.name} is better: it has {k} of the {n} videos right that they disagree on"

    def to_dict(self) -> dict[str, Any]:
        counts = {key: getattr(self, key) for key in ("n_videos", "both", "only_first", "only_second", "p", "reading")}
        return {"first": str(self.first.folder), "second": str(self.second.folder)} | counts


def duels(runs: Sequence[Run]) -> list[Duel]:
    """The first run against each other one with which it shares scored videos; p is corrected for their number."""
    found = [duel for run in runs[1:] if (duel := _duel(runs[0], run))]
    adjusted = metrics.holm([duel.p for duel in found])
    return [
        Duel(d.first, d.second, d.n_videos, d.both, d.only_first, d.only_second, p)
        for d, p in zip(found, adjusted, strict=True)
    ]


def _duel(first: Run, second: Run) -> Duel | None:
    own, other = _by_name(first), _by_name(second)
    pairs = [(own[key], other[key]) for key in own.keys() & other.keys()]
    if not pairs:
        return None
    counts = Counter((a.right, b.right) for a, b in pairs)
    only_first, only_second = counts[True, False], counts[False, True]
    p = metrics.mcnemar(only_first, only_second)
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
