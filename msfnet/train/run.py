"""A run folder from start to end: recipe, split, training, best weights, final score, report.

The folder holds recipe.toml, split.csv, environment.json, metrics.csv, weights.safetensors (best), last/ (to resume),
scores.json and report.html.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from msfnet import __version__
from msfnet.data.annotations import Listing, read_manifest
from msfnet.data.augment import mirrored_classes
from msfnet.data.cache import FrameCache
from msfnet.data.dataset import ScoredVideos, TrainingVideos, Turns, make_loader, open_cache
from msfnet.data.splits import assign_splits
from msfnet.evaluate import SPLIT, best_device, evaluate
from msfnet.files import write_text
from msfnet.models.checkpoint import WEIGHTS, Weights, init_weights, load_weights, save_weights
from msfnet.models.registry import create_model
from msfnet.recipe import Recipe, load_recipe
from msfnet.report import write_run_report
from msfnet.train.engine import CHECKPOINT, Classifier, EpochRow, fit
from msfnet.types import Scores, UserError, VideoItem

Say = Callable[[str], None]

RECIPE, METRICS, ENVIRONMENT, SCORES = "recipe.toml", "metrics.csv", "environment.json", "scores.json"
COLUMNS = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "seconds")


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies and how it scored on its test videos (None: it has none)."""

    folder: Path
    scores: Scores | None
    problems: dict[str, str]  # path -> reason, of every video that could not be read


def new_run_folder(name: str) -> Path:
    """runs/NAME, or the first runs/NAME-2, -3, ... that is free."""
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())


def train(listing: Listing, recipe: Recipe, folder: Path, *, say: Say) -> RunResult:
    """Train the recipe's network on a data set and leave everything in `folder`.

    Raises UserError when the folder holds a run already or the data cannot be trained on.
    """
    return _run(_start_run(listing, recipe, folder), recipe, folder, say, resume=False)


def resume(folder: Path, *, say: Say) -> RunResult:
    """Go on with the run in `folder` from the last epoch it finished, with its own recipe, videos and split.

    Raises UserError when there is nothing to go on from.
    """
    recipe, listing = _read_run(folder)
    return _run(listing, recipe, folder, say, resume=True)


def _run(listing: Listing, recipe: Recipe, folder: Path, say: Say, *, resume: bool) -> RunResult:
    say(listing.describe())
    items, classes = listing.items, listing.classes
    parts = {name: [item for item in items if item.split == name] for name in ("train", "val", "test")}
    model, arguments = _build_model(recipe, classes)
    if recipe.model.init and not resume:
        _warm_start(model, recipe, say)
    classifier = Classifier(model, recipe, classes)
    weights = Weights(model, recipe.model.name, arguments, classes, recipe.preprocessing(), {})
    history = _History(folder, weights, recipe.train.epochs, say)
    if resume:
        history.keep(_epochs_done(folder))
    choosing = f"choosing the best epoch on {len(parts['val'])}" if parts["val"] else "keeping the last epoch"
    say(f"training {recipe.model.name} on {len(parts['train'])} videos, {choosing}: {folder}")
    cache = open_cache(recipe.data, recipe.preprocessing(), items, say)
    _fit(classifier, recipe, classes, parts, history, cache, resume=resume)
    problems = _tell_problems(classifier, parts["train"], say)
    best = load_weights(folder)
    scores = None
    if parts["test"]:
        scores = _score(best, recipe, parts["test"], cache, say)
        problems |= scores.failed
        write_text(folder / SCORES, json.dumps(scores.to_dict(), indent=2, ensure_ascii=False))
        save_weights(folder / WEIGHTS, replace(best, notes={**best.notes, "test": scores.video}))
    for line in cache.problems() if cache else ():
        say(line)
    write_run_report(
        folder / "report.html",
        title=f"{recipe.model.name} on {len(classes)} classes",
        facts=_facts(recipe, best, parts),
        history=history.rows,
        scores=scores,
        problems=problems,
    )
    return RunResult(folder, scores, problems)


# The pieces of a run


def _model_arguments(recipe: Recipe) -> dict[str, Any]:
    own = {"width": recipe.model.width, "frames": recipe.data.frames, "size": recipe.data.size}
    return own | recipe.model.arguments


def _build_model(recipe: Recipe, classes: Sequence[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The network, seeded, and the arguments that make it again. The recipe's size goes into the network's."""
    torch.manual_seed(recipe.train.seed)
    arguments = _model_arguments(recipe)
    return create_model(recipe.model.name, len(classes), **arguments), arguments


def _warm_start(model: nn.Module, recipe: Recipe, say: Say) -> None:
    fresh = init_weights(model, recipe.model.init, recipe.model.name)
    left = f"left fresh: {', '.join(fresh)}" if fresh else "every key fitted"
    say(f"started from {recipe.model.init}; {left}")


def _fit(
    classifier: Classifier,
    recipe: Recipe,
    classes: tuple[str, ...],
    parts: dict[str, list[VideoItem]],
    history: _History,
    cache: FrameCache | None,
    *,
    resume: bool,
) -> None:
    data, preprocessing, batch = recipe.data, recipe.preprocessing(), recipe.train.batch
    videos = TrainingVideos(
        parts["train"],
        classes,
        preprocessing,
        cache,
        sampling=data.train_sampling,
        temporal_jitter=data.temporal_jitter,
    )
    train_loader = make_loader(videos, batch, data.workers, Turns(len(videos), recipe.train.seed))
    val_loader = None
    if parts["val"]:
        val_videos = ScoredVideos(parts["val"], classes, preprocessing, cache, clips=1)
        val_loader = make_loader(val_videos, batch, data.workers)
    fit(classifier, train_loader, val_loader, history.folder / "last", history.add, resume=resume)
    if len(classifier.failures) == len(videos):
        raise UserError(f"none of the {len(videos)} training videos could be read; see msfnet predict for the reasons")


def _tell_problems(classifier: Classifier, items: Sequence[VideoItem], say: Say) -> dict[str, str]:
    """Name what was wrong with training videos; returns the reason of each that could not be read."""
    failed = {str(items[i].path): reason for i, reason in classifier.failures.items()}
    for path, reason in failed.items():
        say(f"skipped in training: {path}: {reason}")
    for i, warning in classifier.warnings.items():
        say(f"used in part: {items[i].path}: {warning}")
    if short := len(classifier.repeated):
        say(f"{short} training videos are shorter than a clip; their last frame was repeated")
    return failed


def _score(weights: Weights, recipe: Recipe, items: Sequence[VideoItem], cache: FrameCache | None, say: Say) -> Scores:
    """Score the best weights once, with the recipe's views."""
    scores = evaluate(
        weights.model.to(best_device()),
        weights.classes,
        weights.preprocessing,
        items,
        cache=cache,
        workers=recipe.data.workers,
    )
    say(
        f"test: {scores.n_videos} videos, clip top-1 {scores.clip['top1']:.1%}, video top-1 {scores.video['top1']:.1%} "
        f"over {scores.views} views"
    )
    return scores


class _History:
    """metrics.csv, row by row, and the best weights as they come: highest validation top-1, else the last epoch."""

    def __init__(self, folder: Path, weights: Weights, epochs: int, say: Say) -> None:
        self.folder, self.weights, self.epochs, self.say = folder, weights, epochs, say
        self.rows: list[EpochRow] = []
        self.started = time.monotonic()
        self.first = 0

    def keep(self, epochs: int) -> None:
        """Go on from so many epochs of the metrics.csv that is there."""
        self.rows = read_history(self.folder)[:epochs]
        self.first = len(self.rows)

    def add(self, row: EpochRow) -> None:
        best = max((r["val_top1"] for r in self.rows if "val_top1" in r), default=-1.0)
        if row.get("val_top1", 1.0) >= best:
            notes = {"version": __version__, "epoch": int(row["epoch"])}
            if "val_top1" in row:
                notes |= {"val_top1": row["val_top1"]}
            save_weights(self.folder / WEIGHTS, replace(self.weights, notes=notes))
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in kept.items()} for kept in self.rows)
        write_text(self.folder / METRICS, text.getvalue())
        self._tell(row)

    def _tell(self, row: EpochRow) -> None:
        done = len(self.rows)
        per_epoch = (time.monotonic() - self.started) / (done - self.first)
        line = f"epoch {done:3d}/{self.epochs}  loss {row.get('train_loss', float('nan')):.3f}"
        line += f"  train {row.get('train_top1', 0):6.1%}"
        if "val_top1" in row:
            line += f"  val {row['val_top1']:6.1%}"
        self.say(f"{line}  {row['seconds']:.0f} s, {per_epoch * (self.epochs - done) / 60:.0f} min to go")


# Files of the run folder


def read_history(folder: Path) -> list[EpochRow]:
    """The rows of a run's metrics.csv; a number that an epoch does not have is left out."""
    with (folder / METRICS).open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _start_run(listing: Listing, recipe: Recipe, folder: Path) -> Listing:
    """Refuse what cannot be trained, then make the folder; returns the listing with every item's split."""
    if (folder / WEIGHTS).exists() or (folder / "last").exists():
        raise UserError(f"{folder} holds a run already; go on with --resume, or choose another --out")
    items = assign_splits(listing.items, recipe.data.val_fraction, recipe.train.seed)
    trained = {item.label for item in items if item.split == "train"}
    if len(trained) < 2:
        raise UserError(f"expected training videos of at least 2 classes, found {len(trained)}")
    if untrained := sorted(set(listing.classes) - trained):
        raise UserError(f"class {untrained[0]} has no training video, only others; move some to train or leave it out")
    mirrored_classes(recipe.data.flip_pairs, listing.classes)  # refuses labels that no class has
    if recipe.train.batch < 2:
        raise UserError(f"expected train.batch of 2 or more (norms need several clips), found {recipe.train.batch}")
    if recipe.train.devices not in ("auto", 1):
        raise UserError(f"expected train.devices of 1 (several are not supported yet), found {recipe.train.devices}")
    if recipe.train.precision != "32-true" and best_device().type == "cpu":
        # torch 2.13 leaves weight gradients of bf16 3x3x3 convolutions over two frames partly unwritten on CPUs.
        raise UserError(
            f"expected train.precision 32-true, found {recipe.train.precision}: mixed precision needs a GPU"
        )
    with torch.device("meta"):  # a network that cannot be made is refused before anything is written
        create_model(recipe.model.name, len(trained), **_model_arguments(recipe))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SPLIT, _split_csv(items))
    write_text(folder / ENVIRONMENT, json.dumps(_environment(recipe, items), indent=2))
    write_text(folder / RECIPE, recipe.to_toml())
    return replace(listing, items=tuple(items))


def _read_run(folder: Path) -> tuple[Recipe, Listing]:
    if not (folder / RECIPE).is_file() or not (folder / "last" / CHECKPOINT).is_file():
        raise UserError(f"expected a run to resume in {folder}, found no finished epoch there; train without --resume")
    return load_recipe(str(folder / RECIPE)), read_manifest(folder / SPLIT)


def _epochs_done(folder: Path) -> int:
    checkpoint = torch.load(folder / "last" / CHECKPOINT, map_location="cpu", weights_only=True)
    return int(checkpoint["epoch"]) + 1


def _split_csv(items: Sequence[VideoItem]) -> str:
    """The split as a manifest of absolute paths."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split", "group"))
    writer.writerows((item.path.resolve(), item.label, item.split, item.group or "") for item in items)
    return text.getvalue()


def _environment(recipe: Recipe, items: Sequence[VideoItem]) -> dict[str, Any]:
    """What is needed to tell two runs apart: versions, machine, commit, seed, data."""
    described = sorted(f"{item.label}/{item.path.name} {item.split} {item.path.stat().st_size}" for item in items)
    return {
        "msfnet": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "seed": recipe.train.seed,
        "videos": len(items),
        "data_fingerprint": hashlib.sha256("\n".join(described).encode()).hexdigest(),
    }


def _commit() -> str | None:
    """The commit of msfnet's own source, where it runs from a clone."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _facts(recipe: Recipe, best: Weights, parts: dict[str, list[VideoItem]]) -> dict[str, str]:
    chosen = f"epoch {best.notes['epoch']}"
    if "val_top1" in best.notes:
        chosen += f", validation top-1 {best.notes['val_top1']:.1%}"
    return {
        "network": f"{recipe.model.name}, width {recipe.model.width:g}",
        "input": f"{recipe.data.frames} frames of {recipe.data.size} px",
        "videos": ", ".join(f"{len(items)} {name}" for name, items in parts.items()),
        "best weights": chosen,
        "seed": str(recipe.train.seed),
    }
