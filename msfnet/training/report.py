"""Writes the page of a run, report.html, from the files of its folder: after training, and again at any time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.thumbnails import file_thumbnails
from msfnet.models.checkpoint import read_header
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import write_run_report
from msfnet.run_folder import RECIPE, REPORT, Run, require_run
from msfnet.types import Frames, UserError


def write_report(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a run, finished or not.

    Args:
        folder: The run folder.
        page: The file to write; by default report.html in the folder.

    Returns:
        The file that was written.

    Raises:
        UserError: The folder holds no run, or a damaged file.
    """
    run = require_run(folder)
    recipe, history, result = load_recipe(folder / RECIPE), run.history, run.result
    split = run.split
    n_train = Counter(video.label for video in split if video.split == "train")
    page = page or folder / REPORT
    page.parent.mkdir(parents=True, exist_ok=True)
    write_run_report(
        page,
        title=f"{recipe.model.name} on {len({video.label for video in split})} classes",
        facts=_facts(recipe, run, Counter(video.split for video in split), n_train, len(history)),
        history=history,
        result=result,
        unreadable=run.unreadable | (result.unreadable if result else {}),
        n_train=n_train,
        steps_per_epoch=math.ceil(n_train.total() / recipe.train.batch_size),
        thumbnails=partial(_thumbnails, run.environment.get("data_location")),
    )
    return page


def _thumbnails(location: str | None, paths: Sequence[str]) -> Mapping[str, Frames]:
    """Return pictures of the run's videos; none where its dataset has been moved or damaged since."""
    if location is None:
        return file_thumbnails(paths)
    try:
        return read_dataset(location).thumbnails(paths)
    except UserError:
        return {}


def _facts(
    recipe: Recipe, run: Run, n_videos: Mapping[str, int], n_train: Counter[str], n_epochs: int
) -> dict[str, str]:
    sizes = n_train.most_common()
    facts = {
        "network": f"{recipe.model.name}, width multiplier {recipe.model.width_mult:g}",
        "input": f"{recipe.clip.num_frames} frames of {recipe.clip.crop_size} px",
        "videos": ", ".join(f"{n_videos[name]} {name}" for name in ("train", "val", "test") if n_videos[name]),
        "training videos per class": f"{sizes[-1][1]} ({sizes[-1][0]}) to {sizes[0][1]} ({sizes[0][0]})",
        "epochs": f"{n_epochs} of {recipe.train.epochs}",
        "seed": str(recipe.train.seed),
    }
    if run.weights.is_file():
        notes = read_header(run.weights).get("notes", {})
        best = f"epoch {notes.get('epoch', '?')}"
        if "val_top1" in notes:
            best += f", validation top-1 {notes['val_top1']:.1%}"
        facts["best weights"] = best
    return facts
