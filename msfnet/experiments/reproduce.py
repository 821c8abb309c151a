"""A plan carried out: one test split for all, and every row's runs on the machines there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.data.dataset import Dataset
from msfnet.experiments.cluster import Machines, do_runs, finished
from msfnet.experiments.paper import Plan
from msfnet.experiments.paper_results import Results, find_records, read_results
from msfnet.types import UserError


@dataclass(frozen=True)
class Reproduction:
    """Results, runs that failed (name -> reason) and videos that could not be read (path -> reason)."""

    results: Results
    failed: Mapping[str, str]
    problems: Mapping[str, str]


def run_plan(
    plan: Plan, data: Dataset, folder: Path, machines: Machines, joined: Sequence[Path] = ()
) -> Reproduction:
    """Bring every run of the plan to its end in `folder`, but for those in the files `joined`; it goes on.

    Raises UserError for data without test videos, and when `folder` or a file holds other runs.
    """
    known = find_records(plan, folder, joined)
    here = [run for run in plan.runs() if run.name not in known or finished(folder, run.name)]
    outcomes = do_runs(with_test_videos(data, plan), here, folder, machines, score_test=True)
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    problems = {path: reason for outcome in outcomes for path, reason in outcome.problems.items()}
    return Reproduction(read_results(plan, folder, joined), failed, problems)


def with_test_videos(data: Dataset, plan: Plan) -> Dataset:
    """The data with one test split for all runs, drawn if it has none.

    Validation videos are tested on where there are no others, as the paper does with those of Kinetics; each run then
    holds out its own of the training videos, if its recipe wants any.
    """
    recipe = plan.recipe_of(plan.networks[0])
    no_val = recipe.data.model_copy(update={"val_fraction": 0.0})
    data = data.resolve_splits(no_val, recipe.train.seed)
    if not data.in_split("test"):
        data = data.rename_split("val", "test")
    if not data.in_split("test"):
        raise UserError(f"expected test videos in {data.source}, found none; remove the split to have one drawn")
    return data
