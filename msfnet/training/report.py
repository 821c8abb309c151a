"""A run's report.html from the files that lie in its folder: at the end of training, and again whenever it is asked."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msfnet.atomic_io import write_text
from msfnet.data.annotations.tables import read_json, read_table
from msfnet.data.thumbnails import strips_of
from msfnet.inference.evaluation import RECIPE, SPLIT
from msfnet.models.checkpoint import WEIGHTS, read_header
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import write_run_report
from msfnet.training.history import ENVIRONMENT, METRICS, SCORES, read_history
from msfnet.training.loop import EpochRow
from msfnet.types import EvalResult, UserError

PAGE, PROBLEMS = "report.html", "unreadable.json"


def write_problems(folder: Path, problems: Mapping[str, str]) -> None:
    """Keep why videos could not be read, path -> reason, for this page and those made later."""
    write_text(folder / PROBLEMS, json.dumps(problems, indent=2, ensure_ascii=False))


def report_run(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a run, finished or not, by default into its folder; returns where it is.

    Raises UserError when the folder holds no run, or files that no run writes.
    """
    if not (folder / RECIPE).is_file() or not (folder / METRICS).is_file():
        raise UserError(f"expected a run in {folder}, found no {RECIPE} or {METRICS} there; name a run folder")
    recipe, history = load_recipe(str(folder / RECIPE)), read_epochs(folder)
    split = read_split(folder)
    scores = read_scores(folder)
    environment = read_object(folder / ENVIRONMENT) or {}
    classes = sorted({label for label, _ in split})
    trained = Counter(label for label, part in split if part == "train")
    page = page or folder / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    write_run_report(
        page,
        title=f"{recipe.model.name} on {len(classes)} classes",
        facts=_facts(recipe, folder, Counter(part for _, part in split), trained, len(history)),
        history=history,
        result=scores,
        unreadable=(read_object(folder / PROBLEMS) or {}) | (scores.unreadable if scores else {}),
        n_train=trained,
        steps_per_epoch=math.ceil(trained.total() / recipe.train.batch_size),
        thumbnails=strips_of(environment.get("shards")),
    )
    return page


def read_split(folder: Path) -> list[tuple[str, str]]:
    """Label and split (train, val, test) of each video that the run began with; the files need not be there."""
    if not (folder / SPLIT).is_file():
        raise UserError(f"expected a run in {folder}, found no {SPLIT} there; name a run folder")
    return [(row.values.get("label", ""), row.values.get("split", "")) for row in read_table(folder / SPLIT)]


def read_scores(folder: Path) -> EvalResult | None:
    """The test videos' scores; None for a run that has none."""
    values = read_object(folder / SCORES)
    return EvalResult.from_dict(values) if values is not None else None


def read_object(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file. Raises UserError for anything else."""
    if not file.is_file():
        return None
    values = read_json(file)
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object in {file}, found a {type(values).__name__}")
    return values


def read_epochs(folder: Path) -> list[EpochRow]:
    """The rows of metrics.csv. Raises UserError for a file that is damaged."""
    try:
        rows = read_history(folder)
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"expected numbers in {folder / METRICS}, found a damaged file ({error})") from error
    if not all("epoch" in row for row in rows):
        raise UserError(f"expected the column epoch in {folder / METRICS}, found a row without it")
    return rows


def _facts(
    recipe: Recipe, folder: Path, n_videos: Mapping[str, int], trained: Counter[str], epochs: int
) -> dict[str, str]:
    sizes = trained.most_common()
    facts = {
        "network": f"{recipe.model.name}, width {recipe.model.width_mult:g}",
        "input": f"{recipe.clip.num_frames} frames of {recipe.clip.crop_size} px",
        "videos": ", ".join(f"{n_videos[name]} {name}" for name in ("train", "val", "test") if n_videos[name]),
        "training videos of a class": f"{sizes[-1][1]} ({sizes[-1][0]}) to {sizes[0][1]} ({sizes[0][0]})",
        "epochs": f"{epochs} of {recipe.train.epochs}",
        "seed": str(recipe.train.seed),
    }
    if (folder / WEIGHTS).is_file():
        notes = read_header(folder / WEIGHTS).get("notes", {})
        chosen = f"epoch {notes.get('epoch', '?')}"
        if "val_top1" in notes:
            chosen += f", validation top-1 {notes['val_top1']:.1%}"
        facts["best weights"] = chosen
    return facts
