"""Trials from best to worst, by the mean over seeds of what they got right among the videos held out of training.

Knows what finished runs scored; of how they were run, nothing.


A sweep from start to end: trials, their runs on the machines there are, the ranking, and the best recipe.

Trials are ranked on videos held out of training, never on the test videos, which no run of a sweep looks at.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path

from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.data.splits import assign_splits, resolve_splits
from msfnet.experiments.cluster import Machines, Outcome, do_runs
from msfnet.experiments.trials import Trial, expand, read_axes, runs_of
from msfnet.recipe import Recipe, change
from msfnet.training.history import read_history
from msfnet.training.loop import EpochRow
from msfnet.types import UserError

log = logging.getLogger(__name__)


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


NO_VALIDATION = "expected videos held out of training to rank trials on (the test videos are not for that), found none"
RANKING, TABLE, BEST = "sweep.json", "sweep.csv", "best.toml"


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended: its trials from best to worst, and the videos that could not be read."""

    folder: Path
    trials: tuple[TrialScore, ...]
    problems: Mapping[str, str]  # path -> reason

    @property
    def failed(self) -> dict[str, str]:
        """Folder name -> reason, of every run that did not finish."""
        return {name: reason for trial in self.trials for name, reason in trial.failed.items()}

    def to_dict(self) -> dict[str, object]:
        scored = any(trial.scores for trial in self.trials)
        return {
            "folder": str(self.folder),
            "best": str(self.folder / BEST) if scored else None,
            "trials": [trial.to_dict() for trial in self.trials],
            "unreadable": dict(self.problems),
        }

    def to_text(self) -> str:
        return to_table(self.trials)


def plan_trials(recipe: Recipe, grid: Sequence[str], drawn: Sequence[str], n_draws: int | None) -> list[Trial]:
    """The trials that `--grid`, `--sample` and `--num-samples` ask for. Raises UserError for what cannot be meant."""
    choices, axes = read_axes(grid, drawn)
    if bool(axes) != bool(n_draws):
        raise UserError("expected --num-samples N, how many draws are made, of 1 or more with --sample, and only then")
    trials = expand(choices, axes, n_draws or 1, recipe.train.seed)
    wanted = math.prod(len(axis.values) for axis in choices) * (n_draws or 1)
    if len(trials) < wanted:
        log.info(f"{wanted} draws are {len(trials)} trials: the others came twice")
    return trials


def run_sweep(
    data: Listing | ShardIndex,
    recipe: Recipe,
    trials: Sequence[Trial],
    n_seeds: int,
    out: Path,
    machines: Machines,
) -> Sweep:
    """Train each trial with so many seeds into `out`, rank them, write sweep.json, sweep.csv and best.toml.

    Called again it goes on, and with more values, draws or seeds it adds their runs.

    Raises UserError when there is nothing to rank by, or `out` holds another sweep.
    """
    if n_seeds < 1:
        raise UserError(f"expected --seeds of 1 or more, found {n_seeds}")
    runs = {trial: runs_of(recipe, trial, n_seeds) for trial in trials}
    split = _with_split(data, recipe, n_seeds)
    everything = [run for runs_of_trial in runs.values() for run in runs_of_trial]
    outcomes = do_runs(split, everything, out, machines, score_test=False)
    by_name = {outcome.name: outcome for outcome in outcomes}
    scored = [_score(trial, [by_name[run.name] for run in runs[trial]], out) for trial in trials]
    problems = {path: reason for outcome in outcomes for path, reason in outcome.problems.items()}
    sweep = Sweep(out, tuple(rank(scored)), problems)
    write_text(out / RANKING, json.dumps(sweep.to_dict(), indent=2, ensure_ascii=False))
    write_text(out / TABLE, to_csv(sweep.trials))
    _write_best(sweep, recipe)
    return sweep


def _with_split(data: Listing | ShardIndex, recipe: Recipe, n_seeds: int) -> Listing | ShardIndex:
    """The data with one test split for all runs; each run holds out its own validation groups of the rest.

    Raises UserError when a run would have none: the test videos are no way to choose.
    """
    if isinstance(data, ShardIndex):  # whose split was drawn when they were written
        if not data.items("val"):
            raise UserError(f"{NO_VALIDATION}; write the shards with --set data.val_fraction=0.2")
        return data
    fraction, group_split, seed = recipe.data.val_fraction, recipe.data.group_split, recipe.train.seed
    no_val = recipe.data.model_copy(update={"val_fraction": 0.0})
    items = resolve_splits(data.items, no_val, seed, official=data.official)
    for run_seed in range(seed, seed + n_seeds):
        if all(item.split != "val" for item in assign_splits(items, fraction, run_seed, group_split)):
            raise UserError(f"{NO_VALIDATION} with data.val_fraction = {fraction:g}; --set data.val_fraction=0.2")
    return replace(data, items=tuple(items))


def _score(trial: Trial, outcomes: Sequence[Outcome], out: Path) -> TrialScore:
    scores = {o.name: score_run(read_history(out / o.name)) for o in outcomes if not o.error}
    return TrialScore(trial, scores, {o.name: o.error for o in outcomes if o.error})


def _write_best(sweep: Sweep, recipe: Recipe) -> None:
    """The best trial's recipe with the sweep's own first seed, as a file that `msfnet train --recipe` takes."""
    best = sweep.trials[0]
    (sweep.folder / BEST).unlink(missing_ok=True)
    if not best.scores:
        return
    spread = f" +- {best.spread:.1%}" if best.spread is not None else ""
    header = f"# Best of {len(sweep.trials)} trials: {' '.join(best.trial.overrides) or 'the recipe as it was'}\n"
    header += f"# Validation top-1 {best.top1:.1%}{spread} over n = {len(best.scores)} seeds\n\n"
    write_text(sweep.folder / BEST, header + change(recipe, best.trial.overrides).to_toml())
    log.info(f"best: {best.trial.name}, validation top-1 {best.top1:.1%}{spread}: {sweep.folder / BEST}")
