"""A plan carried out: one test split for all, and every row's runs on the machines there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet.data.annotations.readers import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.data.splits import resolve_splits
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
    plan: Plan, data: Listing | ShardIndex, folder: Path, machines: Machines, joined: Sequence[Path] = ()
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


def with_test_videos(data: Listing | ShardIndex, plan: Plan) -> Listing | ShardIndex:
    """The data with one test split for all runs, drawn if it has none.

    Validation videos are tested on where there are no others, as the paper does with those of Kinetics; each run then
    holds out its own of the training videos, if its recipe wants any.
    """
    if isinstance(data, ShardIndex):  # whose split was drawn when they were written
        if not data.items("test"):
            raise UserError(f"expected test videos in {data.source}, found none; write shards of data that have some")
        return data
    recipe = plan.recipe_of(plan.networks[0])
    no_val = recipe.data.model_copy(update={"val_fraction": 0.0})
    items = resolve_splits(data.items, no_val, recipe.train.seed, official=data.official)
    if not any(item.split == "test" for item in items):
        items = [replace(item, split="test") if item.split == "val" else item for item in items]
    if not any(item.split == "test" for item in items):
        raise UserError("expected test videos, found none; remove the split to have one drawn")
    return replace(data, items=tuple(items))
