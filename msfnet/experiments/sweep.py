"""A hyperparameter sweep: its trials are trained, ranked by validation accuracy, and the best recipe is written.

The test set is never evaluated: the best of many trials by test accuracy would look better than it is.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.atomic_io import write_text
from msfnet.data.dataset import Dataset
from msfnet.experiments.cluster import ClusterConfig, train_runs
from msfnet.experiments.trials import Trial, expand, parse_search_space, runs_of_trial
from msfnet.experiments.worker import RunStatus
from msfnet.recipe import Recipe, change
from msfnet.run_folder import EpochRow, Run
from msfnet.types import UserError

log = logging.getLogger(__name__)

RANKING, TABLE, BEST = "sweep.json", "sweep.csv", "best.toml"  # in the folder of a sweep


# Ranking


@dataclass(frozen=True)
class RunScore:
    """Validation accuracy and loss of a run at the epoch whose weights it kept.

    The loss is infinite if no validation video could be read.
    """

    top1: float
    loss: float
    epoch: int

    def to_dict(self) -> dict[str, float | None]:
        """Return the entry of a run in sweep.json."""
        return {"val_top1": self.top1, "val_loss": self.loss if math.isfinite(self.loss) else None, "epoch": self.epoch}


@dataclass(frozen=True)
class TrialResult:
    """The runs of a trial: scores of those that finished, and reasons of those that failed, by folder name."""

    trial: Trial
    scores: Mapping[str, RunScore]
    failed: Mapping[str, str]

    @property
    def top1(self) -> float:
        """The mean over finished runs; -1 without any."""
        return statistics.fmean(score.top1 for score in self.scores.values()) if self.scores else -1.0

    @property
    def loss(self) -> float:
        """The mean over finished runs; infinite without any."""
        return statistics.fmean(score.loss for score in self.scores.values()) if self.scores else math.inf

    @property
    def top1_std(self) -> float | None:
        """The sample standard deviation over finished runs; None with fewer than two."""
        top1 = [score.top1 for score in self.scores.values()]
        return statistics.stdev(top1) if len(top1) > 1 else None

    def to_dict(self) -> dict[str, object]:
        """Return the entry of a trial in sweep.json."""
        runs = [{"folder": name} | score.to_dict() for name, score in self.scores.items()]
        return {
            "name": self.trial.name,
            "set": list(self.trial.overrides),
            "val_top1": self.top1 if self.scores else None,
            "val_top1_std": self.top1_std,
            "n": len(self.scores),
            "runs": runs,
            "failed": dict(self.failed),
        }


def score_run(history: Sequence[EpochRow]) -> RunScore:
    """Return the scores of the epoch whose weights a run kept: the last one with the highest validation top-1.

    Args:
        history: The rows of metrics.csv.
    """
    kept = max(history, key=lambda row: (row["val_top1"], row["epoch"]))
    return RunScore(kept["val_top1"], kept.get("val_loss", math.inf), int(kept["epoch"]))


def rank(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Sort trials by mean top-1, then by mean loss; those with failed runs come last."""
    return sorted(trials, key=lambda trial: (bool(trial.failed), -trial.top1, trial.loss))


def to_table(ranked: Sequence[TrialResult]) -> str:
    """Return the ranking as text: rank, validation top-1 with its standard deviation and n, and the values tried."""
    lines = [f"{'rank':>4}  {'validation top-1':<17}{'n':>2}  trial"]
    for number, result in enumerate(ranked, 1):
        score = _score_text(result) if result.scores else "-"
        failed = f"  ({len(result.failed)} failed)" if result.failed else ""
        lines.append(f"{number:4d}  {score:<17}{len(result.scores):2d}  {_values_text(result.trial)}{failed}")
    return "\n".join(lines)


def to_csv(ranked: Sequence[TrialResult]) -> str:
    """Return the ranking as CSV, with a row for each trial and a column for each recipe key."""
    values = [dict(override.split("=", 1) for override in result.trial.overrides) for result in ranked]
    keys = sorted({key for row in values for key in row})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "trial", *keys, "val_top1", "val_top1_std", "n", "failed"))
    for number, (result, row) in enumerate(zip(ranked, values, strict=True), 1):
        top1 = f"{result.top1:.6g}" if result.scores else ""
        std = f"{result.top1_std:.6g}" if result.top1_std is not None else ""
        own = (row.get(key, "") for key in keys)
        writer.writerow((number, result.trial.name, *own, top1, std, len(result.scores), len(result.failed)))
    return text.getvalue()


def _score_text(result: TrialResult) -> str:
    return f"{result.top1:.1%}" + (f" +- {result.top1_std:.1%}" if result.top1_std is not None else "")


def _values_text(trial: Trial) -> str:
    return " ".join(trial.overrides) or "the recipe as it is"


# Sweep


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    Args:
        folder: Where its runs and its ranking are.
        trials: From best to worst.
        unreadable: Path -> reason, of videos that could not be read.
    """

    folder: Path
    trials: tuple[TrialResult, ...]
    unreadable: Mapping[str, str]

    @property
    def failed(self) -> dict[str, str]:
        """Folder name -> reason, of every run that failed."""
        return {name: reason for result in self.trials for name, reason in result.failed.items()}

    def to_dict(self) -> dict[str, object]:
        """Return the content of sweep.json, which `msfnet sweep --json` prints."""
        scored = any(result.scores for result in self.trials)
        return {
            "folder": str(self.folder),
            "best": str(self.folder / BEST) if scored else None,
            "trials": [result.to_dict() for result in self.trials],
            "unreadable": dict(self.unreadable),
        }

    def to_text(self) -> str:
        """Return the ranking that `msfnet sweep` prints."""
        return to_table(self.trials)


def plan_trials(recipe: Recipe, grid: Sequence[str], sample: Sequence[str], num_samples: int | None) -> list[Trial]:
    """Return the trials that the options `--grid`, `--sample` and `--num-samples` ask for.

    Args:
        recipe: The recipe that the sweep varies; its seed determines the sampled values.
        grid: `KEY=VALUE,VALUE,...` each.
        sample: `KEY=LOW..HIGH`, `KEY=linear:LOW..HIGH` or `KEY=VALUE,VALUE,...` each.
        num_samples: Number of samples at each point of the grid; None without `sample`.

    Raises:
        UserError: The options do not go together, have another form, or repeat a key or a value.
    """
    choices, sampled = parse_search_space(grid, sample)
    if bool(sampled) != bool(num_samples):
        raise UserError("expected --num-samples N of 1 or more together with --sample, and only then")
    trials = expand(choices, sampled, num_samples or 1, recipe.train.seed)
    n_sampled = math.prod(len(choice.values) for choice in choices) * (num_samples or 1)
    if len(trials) < n_sampled:
        log.info("%d samples gave %d different trials", n_sampled, len(trials))
    return trials


def run_sweep(
    data: Dataset, recipe: Recipe, trials: Sequence[Trial], n_seeds: int, out: Path, config: ClusterConfig
) -> Sweep:
    """Train and rank the trials, and write sweep.json, sweep.csv and best.toml.

    Called again, it resumes interrupted runs; with more values, samples or seeds it adds their runs.

    Args:
        data: The dataset.
        recipe: The recipe that the sweep varies.
        trials: The values to try.
        n_seeds: Runs of each trial.
        out: Folder for the run folders and the ranking.
        config: Where to train.

    Returns:
        The trials from best to worst.

    Raises:
        UserError: There are no validation videos to rank trials on, `out` has another sweep, or the runs cannot be
            started.
    """
    if n_seeds < 1:
        raise UserError(f"expected --seeds of 1 or more, found {n_seeds}")
    runs = {trial: runs_of_trial(recipe, trial, n_seeds) for trial in trials}
    data = _with_test_split(data, recipe, n_seeds)
    statuses = train_runs(data, [run for own in runs.values() for run in own], out, config, score_test=False)
    by_name = {status.name: status for status in statuses}
    results = [_trial_result(trial, [by_name[run.name] for run in runs[trial]], out) for trial in trials]
    unreadable = {path: reason for status in statuses for path, reason in status.unreadable.items()}
    sweep = Sweep(out, tuple(rank(results)), unreadable)
    write_text(out / RANKING, json.dumps(sweep.to_dict(), indent=2, ensure_ascii=False))
    write_text(out / TABLE, to_csv(sweep.trials))
    _write_best(sweep, recipe)
    return sweep


def _with_test_split(data: Dataset, recipe: Recipe, n_seeds: int) -> Dataset:
    """Return the data with one test split for all runs; each run holds out its own validation groups of the rest."""
    no_val = recipe.data.model_copy(update={"val_fraction": 0.0})
    data = data.resolve_splits(no_val, recipe.train.seed)
    for seed in range(recipe.train.seed, recipe.train.seed + n_seeds):
        if not data.resolve_splits(recipe.data, seed).in_split("val"):
            raise UserError(
                f"expected validation videos to rank trials on, found none with data.val_fraction = "
                f"{recipe.data.val_fraction:g}; use --set data.val_fraction=0.2, with shards when they are written"
            )
    return data


def _trial_result(trial: Trial, statuses: Sequence[RunStatus], out: Path) -> TrialResult:
    scores = {status.name: score_run(Run(out / status.name).history) for status in statuses if not status.error}
    return TrialResult(trial, scores, {status.name: status.error for status in statuses if status.error})


def _write_best(sweep: Sweep, recipe: Recipe) -> None:
    """Write the recipe of the best trial, with the seed of the sweep's recipe."""
    best = sweep.trials[0]
    (sweep.folder / BEST).unlink(missing_ok=True)
    if not best.scores:
        return
    score = f"validation top-1 {_score_text(best)}"
    header = f"# Best of {len(sweep.trials)} trials: {_values_text(best.trial)}\n"
    header += f"# {score.capitalize()}, n = {len(best.scores)} seeds\n\n"
    write_text(sweep.folder / BEST, header + change(recipe, best.trial.overrides).to_toml())
    log.info("best trial: %s, %s: %s", best.trial.name, score, sweep.folder / BEST)
