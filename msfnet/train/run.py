"""A run from start to end: recipe, split, training, best weights, final score, report; see `folder` for its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msfnet.data.augment.augmentation import mirrored_classes
from msfnet.data.listing.annotations import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.data.shards.stream import check_size
from msfnet.data.splits import assign_splits, refuse_leaks
from msfnet.evaluate import best_device, evaluate
from msfnet.files import write_text
from msfnet.models.checkpoint import WEIGHTS, Weights, init_weights, load_weights, save_weights
from msfnet.models.registry import create_model
from msfnet.recipe import Recipe
from msfnet.report import write_run_report
from msfnet.train.engine import BadVideoError, Classifier, fit
from msfnet.train.folder import SCORES, History, epochs_done, holds_run, read_folder, start_folder
from msfnet.train.videos import RunVideos
from msfnet.types import Say, Scores, UserError, VideoItem


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


def train(data: Listing | ShardIndex, recipe: Recipe, folder: Path, *, say: Say) -> RunResult:
    """Train the recipe's network on a data set, of files or of shards, and leave everything in `folder`.

    Raises UserError when the folder holds a run already or the data cannot be trained on.
    """
    listing, shards = (data.listing(), data) if isinstance(data, ShardIndex) else (data, None)
    return _run(_start_run(listing, shards, recipe, folder), shards, recipe, folder, say, resume=False)


def resume(folder: Path, *, say: Say) -> RunResult:
    """Go on with the run in `folder` from the last epoch it finished, with its own recipe, videos and split.

    Raises UserError when there is nothing to go on from.
    """
    recipe, listing, shards = read_folder(folder)
    return _run(listing, shards, recipe, folder, say, resume=True)


def _run(
    listing: Listing, shards: ShardIndex | None, recipe: Recipe, folder: Path, say: Say, *, resume: bool
) -> RunResult:
    say((shards or listing).describe())
    videos = RunVideos.of(listing, shards, recipe, say)
    parts, classes = videos.parts, videos.classes
    model, arguments = _build_model(recipe, classes)
    if recipe.model.init and not resume:
        _warm_start(model, recipe, say)
    classifier = Classifier(model, recipe, classes)
    weights = Weights(model, recipe.model.name, arguments, classes, recipe.preprocessing(), {})
    history = History(folder, weights, recipe.train.epochs, say)
    if resume:
        history.keep(epochs_done(folder))
    choosing = f"choosing the best epoch on {len(parts['val'])}" if parts["val"] else "keeping the last epoch"
    say(f"training {recipe.model.name} on {len(parts['train'])} videos, {choosing}: {folder}")
    _fit(classifier, videos, history, resume=resume)
    problems = _tell_problems(classifier, parts, say)
    best = load_weights(folder)
    scores = None
    if parts["test"]:
        scores = _score(best, videos, say)
        problems |= scores.failed
        write_text(folder / SCORES, json.dumps(scores.to_dict(), indent=2, ensure_ascii=False))
        save_weights(folder / WEIGHTS, replace(best, notes={**best.notes, "test": scores.video}))
    for line in videos.reader.problems() if videos.reader else ():
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


def _build_model(recipe: Recipe, classes: Sequence[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The network, seeded, and the arguments that make it again. The recipe's size goes into the network's."""
    torch.manual_seed(recipe.train.seed)
    arguments = recipe.model_arguments()
    return create_model(recipe.model.name, len(classes), **arguments), arguments


def _warm_start(model: nn.Module, recipe: Recipe, say: Say) -> None:
    fresh = init_weights(model, recipe.model.init, recipe.model.name)
    left = f"left fresh: {', '.join(fresh)}" if fresh else "every key fitted"
    say(f"started from {recipe.model.init}; {left}")


def _fit(classifier: Classifier, videos: RunVideos, history: History, *, resume: bool) -> None:
    train_loader, val_loader = videos.loaders()
    classifier.failures |= videos.unpacked()
    if resume:  # the trainer tells the epoch too late for workers that read ahead
        train_loader.sampler.set_epoch(epochs_done(history.folder))  # type: ignore[attr-defined]
    try:
        fit(classifier, train_loader, val_loader, history.folder / "last", history.add, resume=resume)
    except BadVideoError as error:
        key = "bad_videos" if error.split == "train" else "bad_scored"
        raise UserError(f"{videos.parts[error.split][error.index].path}: {error}; data.{key} is fail") from error
    n_videos = len(videos.parts["train"])
    if len(classifier.failures) == n_videos:
        raise UserError(f"none of the {n_videos} training videos could be read; see msfnet doctor for the reasons")


def _tell_problems(classifier: Classifier, parts: dict[str, list[VideoItem]], say: Say) -> dict[str, str]:
    """Name what was wrong with videos in training; returns the reason of each that could not be read."""
    failed = {str(parts["train"][i].path): reason for i, reason in classifier.failures.items()}
    for path, reason in failed.items():
        say(f"skipped in training: {path}: {reason}")
    unscored = {str(parts["val"][i].path): reason for i, reason in classifier.val_failures.items()}
    for path, reason in unscored.items():
        say(f"counted as wrong in validation: {path}: {reason}")
    for i, warning in classifier.warnings.items():
        say(f"used in part: {parts['train'][i].path}: {warning}")
    if short := len(classifier.repeated):
        say(f"{short} training videos are shorter than a clip; their last frame was repeated")
    return failed | unscored


def _score(weights: Weights, videos: RunVideos, say: Say) -> Scores:
    """Score the best weights once, with the recipe's views."""
    data = videos.recipe.data
    scores = evaluate(
        weights.model.to(best_device()),
        weights.classes,
        weights.preprocessing,
        videos.parts["test"],
        reader=videos.reader,
        workers=data.workers,
        shards=videos.shards,
        bad_videos=data.bad_scored,
    )
    say(
        f"test: {scores.n_videos} videos, clip top-1 {scores.clip['top1']:.1%}, video top-1 {scores.video['top1']:.1%} "
        f"over {scores.views} views"
    )
    return scores


def _start_run(listing: Listing, shards: ShardIndex | None, recipe: Recipe, folder: Path) -> Listing:
    """Refuse what cannot be trained, then make the folder; returns the listing with every item's split."""
    if holds_run(folder):
        raise UserError(f"{folder} holds a run already; go on with --resume, or choose another --out")
    if shards:  # whose split was drawn when they were written
        check_size(shards, recipe.preprocessing())
        items = list(listing.items)
    else:
        data = recipe.data
        if data.groups == "keep" and not listing.official:  # on official splits others report their scores
            refuse_leaks(listing.items)
        items = assign_splits(listing.items, data.val_fraction, recipe.train.seed, data.groups)
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
        create_model(recipe.model.name, len(trained), **recipe.model_arguments())
    start_folder(folder, recipe, items, shards)
    return replace(listing, items=tuple(items))


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
