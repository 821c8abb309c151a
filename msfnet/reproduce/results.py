"""From the run folders of a plan to rows with the paper's numbers beside ours. Whatever is finished counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.compare.runs import Run, read_run
from msfnet.metrics import Bools
from msfnet.models.registry import ModelSummary, summarise
from msfnet.recipe import load_recipe
from msfnet.reproduce.claims import Tried, try_claims
from msfnet.reproduce.plan import Plan
from msfnet.reproduce.tables import Network, Row
from msfnet.sweep.cluster import first_difference
from msfnet.sweep.work import finished
from msfnet.types import UserError


@dataclass(frozen=True)
class RowResult:
    """A row with the runs of its network, as far as they are finished.

    `counted` is the network at the paper's size and number of classes; None for a row that the paper quotes.
    """

    row: Row
    counted: ModelSummary | None
    runs: tuple[Run, ...]

    @property
    def top1(self) -> list[float]:
        """Video top-1 of each run, %."""
        return [100 * run.test_top1 for run in self.runs if run.test_top1 is not None]

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.top1)) if self.runs else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of a sample, from two runs on."""
        return metrics.mean_and_spread(self.top1)[1] if len(self.runs) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        printed, trained = self.row.printed, self.runs[0].summary if self.runs else None
        return {
            "table": self.row.table,
            "row": self.row.label,
            "model": self.row.model or None,
            "arguments": self.row.arguments,
            "params": self.counted.params if self.counted else None,
            "macs": self.counted.macs if self.counted else None,
            "paper_params_m": _number(printed.params),
            "paper_gmacs": _number(printed.gmacs),
            "paper_top1": _number(printed.top1),
            "top1_mean": self.mean,
            "top1_std": self.spread,
            "n_seeds": len(self.runs),
            "top1": self.top1,
            "runs": [run.name for run in self.runs],
            "trained_params": trained.params if trained else None,
            "trained_macs": trained.macs if trained else None,
            "source": self.row.source or None,
            "remark": self.row.remark or None,
        }


@dataclass(frozen=True)
class Results:
    """All that is known of a plan at a moment: rows, claims, finished runs, and the names of those yet to do."""

    plan: Plan
    rows: tuple[RowResult, ...]
    claims: tuple[Tried, ...]
    runs: Mapping[Network, tuple[Run, ...]]
    missing: tuple[str, ...]

    @property
    def finished(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]

    def to_dict(self) -> dict[str, Any]:
        return {
            "scale": self.plan.scale.name,
            "recipe": self.plan.recipe,
            "rows": [row.to_dict() for row in self.rows],
            "claims": [tried.to_dict() for tried in self.claims],
            "missing": list(self.missing),
        }


def read_results(plan: Plan, folder: Path) -> Results:
    """Read the finished runs in `folder`.

    Raises UserError for runs of another recipe, without scored test videos, or scored on different videos.
    """
    runs = {network: tuple(_read_runs(plan, network, folder)) for network in plan.networks}
    right = right_answers(runs)
    classes = {table.number: table.classes for table in plan.tables}
    rows = tuple(
        RowResult(row, _counted(network, classes[row.table]), runs[network])
        if (network := row.network)
        else RowResult(row, None, ())
        for row in plan.rows
    )
    printed = {row.key: float(row.printed.top1) for row in plan.rows}
    by_key = {row.key: right.get(row.network) if row.network else None for row in plan.rows}
    claims = tuple(try_claims(plan.claims, printed, by_key))
    missing = tuple(run.name for run in plan.runs() if finished(folder, run.name) is None)
    return Results(plan, rows, claims, runs, missing)


def right_answers(runs: Mapping[Network, Sequence[Run]]) -> dict[Network, Bools]:
    """Which videos each run has right, R V, the videos in the same order for all; of networks that have a run.

    Raises UserError where not all were scored on the same videos.
    """
    answers: dict[Network, list[list[bool]]] = {}
    first: Run | None = None
    for network, own in runs.items():
        for run in own:
            first = first or run
            if _videos(run) != _videos(first):
                raise UserError(f"expected runs on the same videos, found others in {run.folder} than {first.folder}")
            right = {video.path: video.right for video in _scores(run)}
            answers.setdefault(network, []).append([right[path] for path in _videos(run)])
    return {network: np.array(rows) for network, rows in answers.items()}


def _videos(run: Run) -> list[str]:
    return sorted(video.path for video in _scores(run))


def _scores(run: Run) -> Any:
    if not run.scores or not run.scores.videos:
        raise UserError(f"expected scored test videos in {run.folder}, found none: its data have no test split")
    return run.scores.videos


def _read_runs(plan: Plan, network: Network, folder: Path) -> list[Run]:
    found = []
    for planned in plan.runs_of(network):
        if finished(folder, planned.name) is None:
            continue
        run = read_run(folder / planned.name, planned.name)
        if other := first_difference(load_recipe(str(run.folder / "recipe.toml")), planned.recipe):
            raise UserError(f"{folder} holds {planned.name} with {other}; name another --runs, or the same settings")
        found.append(run)
    return found


def _counted(network: Network, n_classes: int) -> ModelSummary:
    return _summary(network.model, n_classes, json.dumps(dict(network.arguments)))


@cache
def _summary(name: str, n_classes: int, arguments: str) -> ModelSummary:
    return summarise(name, n_classes, **json.loads(arguments))


def _number(text: str) -> float | None:
    return float(text) if text else None
