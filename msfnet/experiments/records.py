"""Records of finished runs: what the results page needs of a run, small enough to publish.

The records of a machine are one JSON file, which can be merged with those of other machines.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msfnet.experiments.runs import network_summary, read_finished_run
from msfnet.models.registry import ModelSummary
from msfnet.recipe import Recipe
from msfnet.report import EpochRows
from msfnet.run_folder import Run
from msfnet.types import UserError, one_line

ENVIRONMENT_KEYS = ("msfnet", "commit", "torch", "processor", "cpus", "threads", "gpus")
HISTORY_COLUMNS = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "seconds")


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Args:
        name: Name of its folder.
        recipe: What it was trained with.
        environment: Versions, commit and machine.
        num_classes: Classes of the dataset.
        n_videos: Number of train, val and test videos.
        history: Some columns of metrics.csv, with six significant digits.
        correct: Test video -> whether it is predicted correctly; paths start at the folder that has all of them.
    """

    name: str
    recipe: Recipe
    environment: Mapping[str, Any]
    num_classes: int
    n_videos: Mapping[str, int]
    history: EpochRows
    correct: Mapping[str, bool]

    @property
    def top1(self) -> float:
        """Video accuracy on the test set, in %."""
        return 100 * float(np.mean(list(self.correct.values())))

    @property
    def minutes(self) -> float:
        """Duration of the training."""
        return sum(row.get("seconds", 0) for row in self.history) / 60

    @property
    def model(self) -> ModelSummary:
        """Parameters and multiply-adds of the network as it was trained."""
        return network_summary(self.recipe.model.name, self.num_classes, self.recipe.model_kwargs())


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run from its folder.

    Raises:
        UserError: The run has not finished or has no test videos.
    """
    finished, run = read_finished_run(folder, folder.name), Run(folder)
    if not finished.result or not finished.result.videos:
        raise UserError(f"expected a run with test videos in {folder}, found none: its dataset has no test split")
    n_videos = Counter(video.split for video in run.split)
    return RunRecord(
        name=finished.name,
        recipe=finished.recipe,
        environment={key: run.environment[key] for key in ENVIRONMENT_KEYS if key in run.environment},
        num_classes=len(finished.result.classes),
        n_videos={split: n_videos[split] for split in ("train", "val", "test")},
        history=[{key: float(f"{row[key]:.6g}") for key in HISTORY_COLUMNS if key in row} for row in finished.history],
        correct=_with_relative_paths({video.path: video.correct for video in finished.result.videos}),
    )


def _with_relative_paths(correct: Mapping[str, bool]) -> dict[str, bool]:
    """Return paths below the deepest folder that has all of them, sorted."""
    root = os.path.commonpath([Path(path).parent for path in correct])
    return {Path(path).relative_to(root).as_posix(): correct[path] for path in sorted(correct)}


def to_json(records: Sequence[RunRecord]) -> str:
    """Return records as JSON with one line for each run.

    The test videos are listed once; `correct` of a run has a 1 or a 0 for each of them.
    """
    videos = list(records[0].correct) if records else []
    lines = [json.dumps(_to_dict(record, videos), ensure_ascii=False) for record in records]
    return f'{{"videos": {json.dumps(videos, ensure_ascii=False)},\n"runs": [\n' + ",\n".join(lines) + "\n]}\n"


def _to_dict(record: RunRecord, videos: Sequence[str]) -> dict[str, Any]:
    return {
        "name": record.name,
        "recipe": record.recipe.model_dump(mode="json", exclude_none=True),
        "environment": record.environment,
        "num_classes": record.num_classes,
        "n_videos": record.n_videos,
        "history": record.history,
        "correct": "".join(str(int(record.correct[video])) for video in videos),
    }


def read_records(file: Path) -> list[RunRecord]:
    """Read the records that `to_json` wrote to a file.

    Raises:
        UserError: There is no such file, or it has something else.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
        return [
            RunRecord(
                **own
                | {
                    "recipe": Recipe(**own["recipe"]),
                    "correct": {
                        video: flag == "1" for video, flag in zip(values["videos"], own["correct"], strict=True)
                    },
                }
            )
            for own in values["runs"]
        ]
    except OSError as error:
        raise UserError(f"expected a file results-PRESET.runs.json, found none at {file} ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:  # UserError of a recipe and damaged JSON included
        reason = one_line(error)
        raise UserError(
            f"expected the runs that msfnet reproduce wrote in {file}, found something else ({reason})"
        ) from error
