"""Trains the runs of a plan that have not finished, on one test split for all, and collects the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.data.dataset import Dataset
from msfnet.experiments.cluster import ClusterConfig, train_runs
from msfnet.experiments.paper import Plan
from msfnet.experiments.paper_results import Results, find_records, read_results
from msfnet.experiments.worker import finished_status
from msfnet.types import UserError


@dataclass(frozen=True)
class Reproduction:
    """The outcome of a reproduction.

    Args:
        results: Rows and claims.
        failed: Run -> reason, of runs that failed.
        unreadable: Path -> reason, of videos that could not be read.
    """

    results: Results
    failed: Mapping[str, str]
    unreadable: Mapping[str, str]


def run_plan(
    plan: Plan, data: Dataset, folder: Path, config: ClusterConfig, merged: Sequence[Path] = ()
) -> Reproduction:
    """Train every run of a plan to its end. Called again, it resumes interrupted runs.

    Args:
        plan: The rows to reproduce.
        data: The dataset of the preset.
        folder: Folder for the run folders.
        config: Where to train.
        merged: Files with the records of other machines, whose runs are not trained again.

    Raises:
        UserError: There are no test videos, `folder` or a file has other runs, or the runs cannot be started.
    """
    known = find_records(plan, folder, merged)
    here = [run for run in plan.runs() if run.name not in known or finished_status(folder, run.name)]
    statuses = train_runs(with_test_split(data, plan), here, folder, config, score_test=True)
    failed = {status.name: status.error for status in statuses if status.error}
    unreadable = {path: reason for status in statuses for path, reason in status.unreadable.items()}
    return Reproduction(read_results(plan, folder, merged), failed, unreadable)


def with_test_split(data: Dataset, plan: Plan) -> Dataset:
    """Return the data with one test split for all runs, which is drawn if there is none.

    Without test videos the validation videos become the test split, as in the paper for Kinetics. Each run then holds
    out its own validation videos of the training set if its recipe asks for any.

    Args:
        data: The dataset.
        plan: Its recipe determines how a split is drawn.

    Raises:
        UserError: There are neither test nor validation videos.
    """
    recipe = plan.recipe_of(plan.networks[0])
    no_val = recipe.data.model_copy(update={"val_fraction": 0.0})
    data = data.resolve_splits(no_val, recipe.train.seed)
    if not data.in_split("test"):
        data = data.rename_split("val", "test")
    if not data.in_split("test"):
        raise UserError(f"expected test videos in {data.source}, found none; remove the split to have one drawn")
    return data
