"""The results of a reproduction: the rows of the paper's tables and its claims, from the runs that have finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msfnet import metrics
from msfnet.data.annotations.names import source_of
from msfnet.experiments.claims import ClaimResult, check_claims
from msfnet.experiments.paper import Network, Plan, Row
from msfnet.experiments.records import RunRecord, read_record, read_records
from msfnet.experiments.runs import network_summary
from msfnet.experiments.worker import finished_status
from msfnet.models.registry import ModelSummary
from msfnet.recipe import differing_keys
from msfnet.types import Bools, Ints, UserError


@dataclass(frozen=True)
class RowResult:
    """A row of a table and the finished runs of its network.

    Args:
        row: The row with the paper's numbers.
        full_size: The network at the paper's input size and number of classes; None for a quoted result.
        runs: The finished runs.
    """

    row: Row
    full_size: ModelSummary | None
    runs: tuple[RunRecord, ...]

    @property
    def top1(self) -> list[float]:
        """Video accuracy of each run, in %."""
        return [run.top1 for run in self.runs]

    @property
    def mean(self) -> float | None:
        """Mean of `top1`; None without runs."""
        return float(np.mean(self.top1)) if self.runs else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation of `top1`; None with fewer than two runs."""
        return metrics.mean_and_std(self.top1)[1] if len(self.runs) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a row in results-PRESET.json."""
        printed, trained = self.row.printed, self.runs[0].model if self.runs else None
        return {
            "table": self.row.table,
            "row": self.row.label,
            "model": self.row.model or None,
            "kwargs": self.row.kwargs,
            "params": self.full_size.params if self.full_size else None,
            "macs": self.full_size.macs if self.full_size else None,
            "paper_params_m": _number(printed.params),
            "paper_gmacs": _number(printed.gmacs),
            "paper_top1": _number(printed.top1),
            "top1_mean": self.mean,
            "top1_std": self.std,
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
    """What is known of a plan so far.

    Args:
        plan: The rows to reproduce.
        rows: Their results.
        claims: The claims about them.
        runs: The finished runs of each network.
        missing: Names of the runs that have not finished.
    """

    plan: Plan
    rows: tuple[RowResult, ...]
    claims: tuple[ClaimResult, ...]
    runs: Mapping[Network, tuple[RunRecord, ...]]
    missing: tuple[str, ...]

    @property
    def finished(self) -> list[RunRecord]:
        """The finished runs of all networks."""
        return [run for runs in self.runs.values() for run in runs]

    def to_dict(self) -> dict[str, Any]:
        """Return what `msfnet reproduce --json` prints."""
        return {
            "preset": self.plan.preset.name,
            "recipe": self.plan.recipe,
            "rows": [row.to_dict() for row in self.rows],
            "claims": [claim.to_dict() for claim in self.claims],
            "missing": list(self.missing),
        }


def read_results(plan: Plan, folder: Path, merged: Sequence[Path] = ()) -> Results:
    """Collect the results of a plan from the runs that have finished.

    Args:
        plan: The rows to reproduce.
        folder: Folder of the run folders; it need not exist.
        merged: Files with the records of other machines.

    Raises:
        UserError: A run has another recipe, no test videos or other test videos than the rest, or a file has no
            records.
    """
    records = find_records(plan, folder, merged)
    runs = {
        network: tuple(records[run.name] for run in plan.runs_of(network) if run.name in records)
        for network in plan.networks
    }
    correct = correct_predictions(runs)
    num_classes = {table.number: table.num_classes for table in plan.tables}
    rows = tuple(
        RowResult(row, network_summary(network.model, num_classes[row.table], dict(network.kwargs)), runs[network])
        if (network := row.network)
        else RowResult(row, None, ())
        for row in plan.rows
    )
    paper_top1 = {row.key: float(row.printed.top1) for row in plan.rows}
    correct_by_row = {row.key: correct.get(row.network) if row.network else None for row in plan.rows}
    claims = tuple(check_claims(plan.claims, paper_top1, correct_by_row, video_groups(runs)))
    missing = tuple(run.name for run in plan.runs() if run.name not in records)
    return Results(plan, rows, claims, runs, missing)


def find_records(plan: Plan, folder: Path, merged: Sequence[Path]) -> dict[str, RunRecord]:
    """Return the finished runs of a plan by name; runs in `folder` take precedence over those in files.

    Args:
        plan: The runs to look for.
        folder: Folder of the run folders.
        merged: Files with the records of other machines.

    Raises:
        UserError: A run has another recipe, or a file has no records.
    """
    planned = {run.name: run.recipe for run in plan.runs()}
    found = [(file, record) for file in merged for record in read_records(file) if record.name in planned]
    found += [(folder, read_record(folder / name)) for name in planned if finished_status(folder, name)]
    for source, record in found:
        if keys := differing_keys((record.recipe, planned[record.name])):
            raise UserError(
                f"{source} has the run {record.name} with other values of {', '.join(keys)}; "
                "use the same settings or another folder"
            )
    return {record.name: record for _, record in found}


def correct_predictions(runs: Mapping[Network, Sequence[RunRecord]]) -> dict[Network, Bools]:
    """Return whether each run predicts each test video correctly: R V for each network with runs.

    The videos are in the same order for all networks.

    Args:
        runs: The finished runs of each network.

    Raises:
        UserError: The runs were not evaluated on the same videos.
    """
    records = [record for own in runs.values() for record in own]
    for record in records[1:]:
        if record.correct.keys() != records[0].correct.keys():
            found = f"found other videos in {record.name} than in {records[0].name}"
            raise UserError(f"expected runs with the same test videos, {found}")
    return {
        network: np.array([[record.correct[path] for path in records[0].correct] for record in own])
        for network, own in runs.items()
        if own
    }


def video_groups(runs: Mapping[Network, Sequence[RunRecord]]) -> Ints:
    """Return the group of each video of `correct_predictions`, from 0 to G - 1: V.

    A group is the source that the file name tells; a video without one is a group of its own.

    Args:
        runs: The finished runs of each network.
    """
    videos = next((record.correct for own in runs.values() for record in own), {})
    return np.unique([source_of(path) for path in videos], return_inverse=True)[1]


def _number(text: str) -> float | None:
    return float(text) if text else None
