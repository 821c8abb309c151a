"""What the page needs of a finished run and no more: small enough to publish, and to join with another machine's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from msfnet.compare.runs import read_run
from msfnet.data.listing.tables import read_json
from msfnet.evaluate import RECIPE
from msfnet.models.registry import ModelSummary, summarise
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import Rows
from msfnet.train.folder import ENVIRONMENT
from msfnet.train.page import read_object, read_split
from msfnet.types import UserError

MACHINE = ("msfnet", "commit", "torch", "processor", "cpus", "threads", "gpus")
COURSE = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "seconds")


@dataclass(frozen=True)
class Record:
    """A finished run. `right` has its test videos, their paths below the folder that all of them share."""

    name: str
    recipe: Recipe
    environment: Mapping[str, Any]
    n_classes: int
    n_videos: Mapping[str, int]  # of train, val and test
    history: Rows
    right: Mapping[str, bool]

    @property
    def top1(self) -> float:
        """Of videos, %."""
        return 100 * float(np.mean(list(self.right.values())))

    @property
    def minutes(self) -> float:
        return sum(row.get("seconds", 0) for row in self.history) / 60

    @cached_property
    def summary(self) -> ModelSummary:
        return summarise(self.recipe.model.name, self.n_classes, **self.recipe.model_arguments())


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
        right=_below({video.path: video.right for video in run.scores.videos}),
    )


def _below(right: Mapping[str, bool]) -> dict[str, bool]:
    """With paths from the deepest folder that holds all of them, in their order."""
    root = os.path.commonpath([Path(path).parent for path in right])
    return {Path(path).relative_to(root).as_posix(): right[path] for path in sorted(right)}


def to_text(records: Sequence[Record]) -> str:
    """JSON with a line for each run, whose `right` has a 1 or 0 for each of `videos`."""
    videos = list(records[0].right) if records else []
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
        "right": "".join(str(int(record.right[video])) for video in videos),
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
                    "right": {v: r == "1" for v, r in zip(values["videos"], own["right"], strict=True)},
                }
            )
            for own in values["runs"]
        ]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected runs that msfnet reproduce wrote in {file}, found another file ({reason})"
        ) from error
