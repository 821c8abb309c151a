"""What the page needs of a finished run and no more: small enough to publish, and to join with another machine's.

From the finished runs of a plan to rows with the paper's numbers beside ours. Whatever is finished counts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from msfnet import metrics
from msfnet.data.annotations.names import source_of
from msfnet.data.annotations.tables import read_json
from msfnet.experiments.claims import Tried, try_claims
from msfnet.experiments.cluster import finished, first_difference
from msfnet.experiments.compare import read_run
from msfnet.experiments.paper import Network, Plan, Row
from msfnet.inference.evaluation import RECIPE
from msfnet.models.registry import ModelSummary, summarize
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import EpochRows
from msfnet.training.history import ENVIRONMENT
from msfnet.training.report import read_object, read_split
from msfnet.types import Bools, Ints, UserError

MACHINE = ("msfnet", "commit", "torch", "processor", "cpus", "threads", "gpus")
COURSE = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "seconds")


@dataclass(frozen=True)
class Record:
    """A finished run. `correct` has its test videos, their paths below the folder that all of them share."""

    name: str
    recipe: Recipe
    environment: Mapping[str, Any]
    n_classes: int
    n_videos: Mapping[str, int]  # of train, val and test
    history: EpochRows
    correct: Mapping[str, bool]

    @property
    def top1(self) -> float:
        """Of videos, %."""
        return 100 * float(np.mean(list(self.correct.values())))

    @property
    def minutes(self) -> float:
        return sum(row.get("seconds", 0) for row in self.history) / 60

    @cached_property
    def summary(self) -> ModelSummary:
        return summarize(self.recipe.model.name, self.n_classes, **self.recipe.model_kwargs())


def read_record(folder: Path) -> Record:
    """That of a run folder. Raises UserError for an unfinished run, and one without scored test videos."""
    run, split = read_run(folder, folder.name), read_split(folder)
    if not run.scores or not run.scores.videos:
        raise UserError(f"expected scored test videos in {folder}, found none: its data have no test split")
    environment = read_object(folder / ENVIRONMENT) or {}
    return Record(
        name=run.name,
        recipe=load_recipe(str(folder / RECIPE)),
        environment={key: environment[key] for key in MACHINE if key in environment},
        n_classes=len(run.scores.classes),
        n_videos={name: sum(part == name for _, part in split) for name in ("train", "val", "test")},
        history=[{key: float(f"{row[key]:.6g}") for key in COURSE if key in row} for row in run.history],
        correct=_below({video.path: video.correct for video in run.scores.videos}),
    )


def _below(correct: Mapping[str, bool]) -> dict[str, bool]:
    """With paths from the deepest folder that holds all of them, in their order."""
    root = os.path.commonpath([Path(path).parent for path in correct])
    return {Path(path).relative_to(root).as_posix(): correct[path] for path in sorted(correct)}


def to_text(records: Sequence[Record]) -> str:
    """JSON with a line for each run, whose `correct` has a 1 or 0 for each of `videos`."""
    videos = list(records[0].correct) if records else []
    lines = [json.dumps(_values(record, videos), ensure_ascii=False) for record in records]
    return f'{{"videos": {json.dumps(videos, ensure_ascii=False)},\n"runs": [\n' + ",\n".join(lines) + "\n]}\n"


def _values(record: Record, videos: Sequence[str]) -> dict[str, Any]:
    return {
        "name": record.name,
        "recipe": record.recipe.model_dump(mode="json", exclude_none=True),
        "environment": record.environment,
        "n_classes": record.n_classes,
        "n_videos": record.n_videos,
        "history": record.history,
        "correct": "".join(str(int(record.correct[video])) for video in videos),
    }


def read_records(file: Path) -> list[Record]:
    """The inverse of `to_text`. Raises UserError for a file that is not there, and for any other."""
    values = read_json(file)
    try:
        return [
            Record(
                **own
                | {
                    "recipe": Recipe.model_validate(own["recipe"]),
                    "correct": {v: r == "1" for v, r in zip(values["videos"], own["correct"], strict=True)},
                }
            )
            for own in values["runs"]
        ]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected runs that msfnet reproduce wrote in {file}, found another file ({reason})"
        ) from error


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
        return metrics.mean_and_std(self.top1)[1] if len(self.runs) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        printed, trained = self.row.printed, self.runs[0].summary if self.runs else None
        return {
            "table": self.row.table,
            "row": self.row.label,
            "model": self.row.model or None,
            "kwargs": self.row.kwargs,
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
    correct = correct_predictions(runs)
    classes = {table.number: table.classes for table in plan.tables}
    rows = tuple(
        RowResult(row, _counted(network, classes[row.table]), runs[network])
        if (network := row.network)
        else RowResult(row, None, ())
        for row in plan.rows
    )
    printed = {row.key: float(row.printed.top1) for row in plan.rows}
    by_key = {row.key: correct.get(row.network) if row.network else None for row in plan.rows}
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


def correct_predictions(runs: Mapping[Network, Sequence[Record]]) -> dict[Network, Bools]:
    """Which videos each run has correct, R V, the videos in the same order for all; of networks that have a run.

    Raises UserError where not all were scored on the same videos.
    """
    every = [record for own in runs.values() for record in own]
    for record in every[1:]:
        if record.correct.keys() != every[0].correct.keys():
            found = f"found others in {record.name} than in {every[0].name}"
            raise UserError(f"expected runs on the same test videos, {found}")
    return {
        network: np.array([[record.correct[path] for path in every[0].correct] for record in own])
        for network, own in runs.items()
        if own
    }


def groups_of(runs: Mapping[Network, Sequence[Record]]) -> Ints:
    """The source of each video of `correct_predictions`, by number: what its name tells, else it is one of its own."""
    videos = next((record.correct for own in runs.values() for record in own), {})
    return np.unique([source_of(path) for path in videos], return_inverse=True)[1]


def _counted(network: Network, n_classes: int) -> ModelSummary:
    return _summary(network.model, n_classes, json.dumps(dict(network.kwargs)))


@cache
def _summary(name: str, n_classes: int, kwargs: str) -> ModelSummary:
    return summarize(name, n_classes, **json.loads(kwargs))


def _number(text: str) -> float | None:
    return float(text) if text else None
