"""Trials from best to worst, by the mean over seeds of what they got right among the videos held out of training.

Knows what finished runs scored; of how they were run, nothing.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from msfnet.sweep.trials import Trial
from msfnet.train.loop import EpochRow


@dataclass(frozen=True)
class RunScore:
    """A finished run's validation top-1 and loss, in the epoch whose weights it kept, which is `epoch`.

    Where no validation video could be read there is no loss, and it counts as infinite.
    """

    top1: float
    loss: float
    epoch: int

    def to_dict(self) -> dict[str, float | None]:
        return {"val_top1": self.top1, "val_loss": self.loss if isfinite(self.loss) else None, "epoch": self.epoch}


@dataclass(frozen=True)
class TrialScore:
    """A trial's runs: scores by folder name, and reasons of those that failed."""

    trial: Trial
    scores: Mapping[str, RunScore]
    failed: Mapping[str, str]

    @property
    def top1(self) -> float:
        """The mean over runs; -1 where none finished."""
        return statistics.fmean(score.top1 for score in self.scores.values()) if self.scores else -1.0

    @property
    def loss(self) -> float:
        return statistics.fmean(score.loss for score in self.scores.values()) if self.scores else inf

    @property
    def spread(self) -> float | None:
        """The sample's standard deviation over runs, from two on."""
        top1 = [score.top1 for score in self.scores.values()]
        return statistics.stdev(top1) if len(top1) > 1 else None

    def to_dict(self) -> dict[str, object]:
        runs = [{"folder": name} | score.to_dict() for name, score in self.scores.items()]
        return {
            "name": self.trial.name,
            "set": list(self.trial.overrides),
            "val_top1": self.top1 if self.scores else None,
            "val_top1_std": self.spread,
            "n": len(self.scores),
            "runs": runs,
            "failed": dict(self.failed),
        }


def score_run(history: Sequence[EpochRow]) -> RunScore:
    """The epoch that a run kept: the last of those with the highest validation top-1."""
    kept = max(history, key=lambda row: (row["val_top1"], row["epoch"]))
    return RunScore(kept["val_top1"], kept.get("val_loss", inf), int(kept["epoch"]))


def rank(trials: Sequence[TrialScore]) -> list[TrialScore]:
    """Best first: whole trials before those with failed runs, then by mean top-1, then by mean loss."""
    return sorted(trials, key=lambda t: (bool(t.failed), -t.top1, t.loss))


def to_table(ranked: Sequence[TrialScore]) -> str:
    """Lines to print: rank, validation top-1 with spread and n, and what the trial changed."""
    lines = [f"{'rank':>4}  {'validation top-1':<17}{'n':>2}  trial"]
    for number, trial in enumerate(ranked, 1):
        spread = f" +- {trial.spread:.1%}" if trial.spread is not None else ""
        score = f"{trial.top1:.1%}{spread}" if trial.scores else "-"
        failed = f"  ({len(trial.failed)} failed)" if trial.failed else ""
        changed = " ".join(trial.trial.overrides) or "the recipe as it is"
        lines.append(f"{number:4d}  {score:<17}{len(trial.scores):2d}  {changed}{failed}")
    return "\n".join(lines)


def to_csv(ranked: Sequence[TrialScore]) -> str:
    """One row a trial, a column for each key."""
    values = [dict(override.split("=", 1) for override in trial.trial.overrides) for trial in ranked]
    keys = sorted({key for row in values for key in row})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "trial", *keys, "val_top1", "val_top1_std", "n", "failed"))
    for number, (trial, row) in enumerate(zip(ranked, values, strict=True), 1):
        scores = (f"{trial.top1:.6g}" if trial.scores else "", "" if trial.spread is None else f"{trial.spread:.6g}")
        changed = (row.get(key, "") for key in keys)
        writer.writerow((number, trial.trial.name, *changed, *scores, len(trial.scores), len(trial.failed)))
    return text.getvalue()
