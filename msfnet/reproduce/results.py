"""From the finished runs of a plan to rows with the paper's numbers beside ours. Whatever is finished counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.arrays import Ints
from msfnet.data.listing.names import source_of
from msfnet.metrics import Bools
from msfnet.models.registry import ModelSummary, summarise
from msfnet.reproduce.claims import Tried, try_claims
from msfnet.reproduce.plan import Plan
from msfnet.reproduce.records import Record, read_record, read_records
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
    runs: tuple[Record, ...]

    @property
    def top1(self) -> list[float]:
        """Video top-1 of each run, %."""
        return [run.top1 for run in self.runs]

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
    runs: Mapping[Network, tuple[Record, ...]]
    missing: tuple[str, ...]

    @property
    def finished(self) -> list[Record]:
        return [run for runs in self.runs.values() for run in runs]

    def to_dict(self) -> dict[str, Any]:
        return {
            "scale": self.plan.scale.name,
            "recipe": self.plan.recipe,
            "rows": [row.to_dict() for row in self.rows],
            "claims": [tried.to_dict() for tried in self.claims],
            "missing": list(self.missing),
        }


def read_results(plan: Plan, folder: Path, joined: Sequence[Path] = ()) -> Results:
    """From the plan's finished runs, as `find_records` does.

    Raises UserError for runs of another recipe, without scored test videos, or scored on different videos.
    """
    records = find_records(plan, folder, joined)
    runs = {
        network: tuple(records[run.name] for run in plan.runs_of(network) if run.name in records)
        for network in plan.networks
    }
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
    claims = tuple(try_claims(plan.claims, printed, by_key, groups_of(runs)))
    missing = tuple(run.name for run in plan.runs() if run.name not in records)
    return Results(plan, rows, claims, runs, missing)


def find_records(plan: Plan, folder: Path, joined: Sequence[Path]) -> dict[str, Record]:
    """The plan's finished runs by name: what other machines wrote to the files `joined`, and those in `folder`.

    Raises UserError for a file that is none of these, and for runs of another recipe.
    """
    planned = {run.name: run.recipe for run in plan.runs()}
    found = [(file, record) for file in joined for record in read_records(file) if record.name in planned]
    found += [(folder, read_record(folder / name)) for name in planned if finished(folder, name)]
    for source, record in found:
        if other := first_difference(record.recipe, planned[record.name]):
            raise UserError(f"{source} holds {record.name} with {other}; name another, or the same settings")
    return {record.name: record for _, record in found}


def right_answers(runs: Mapping[Network, Sequence[Record]]) -> dict[Network, Bools]:
    """Which videos each run has right, R V, the videos in the same order for all; of networks that have a run.

    Raises UserError where not all were scored on the same videos.
    """
    every = [record for own in runs.values() for record in own]
    for record in every[1:]:
        if record.right.keys() != every[0].right.keys():
            found = f"found others in {record.name} than in {every[0].name}"
            raise UserError(f"expected runs on the same test videos, {found}")
    return {
        network: np.array([[record.right[path] for path in every[0].right] for record in own])
        for network, own in runs.items()
        if own
    }


def groups_of(runs: Mapping[Network, Sequence[Record]]) -> Ints:
    """The source of each video of `right_answers`, by number: what its name tells, else it is one of its own."""
    videos = next((record.right for own in runs.values() for record in own), {})
    return np.unique([source_of(path) for path in videos], return_inverse=True)[1]


def _counted(network: Network, n_classes: int) -> ModelSummary:
    return _summary(network.model, n_classes, json.dumps(dict(network.arguments)))


@cache
def _summary(name: str, n_classes: int, arguments: str) -> ModelSummary:
    return summarise(name, n_classes, **json.loads(arguments))


def _number(text: str) -> float | None:
    return float(text) if text else None
