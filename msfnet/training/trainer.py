"""A run from start to end: recipe, split, training, best weights, final score, report; see `folder` for its files."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msfnet import distributed
from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import Listing
from msfnet.data.augment.augmentation import mirrored_classes
from msfnet.data.loading import ReaderDiedError
from msfnet.data.shards.index import ShardIndex
from msfnet.data.shards.stream import check_format
from msfnet.data.splits import resolve_splits
from msfnet.inference.evaluation import evaluate
from msfnet.inference.views import best_device
from msfnet.models.checkpoint import WEIGHTS, Checkpoint, load_weights, save_weights
from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model, kernel_exceeds_frames
from msfnet.recipe import Recipe, Train
from msfnet.training.engine import Engine
from msfnet.training.history import SCORES, History, holds_run, owned, read_folder, start_folder
from msfnet.training.launch import processes_to_start, start
from msfnet.training.learner import Account, BadVideoError, DivergedError, Learner
from msfnet.training.loggers import require_trackers, run_log
from msfnet.training.loop import Loop
from msfnet.training.optim import freeze
from msfnet.training.report import report_run, write_problems
from msfnet.training.signals import StopRequests, stop_requests
from msfnet.training.videos import RunVideos
from msfnet.types import EvalResult, UserError, VideoItem

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

# What the system says when a file has no room: the disk, the user's share of it, or the largest file that may be.
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies and how it scored on its test videos (None: it has none)."""

    folder: Path
    scores: EvalResult | None
    problems: dict[str, str]  # path -> reason, of every video that could not be read


def new_run_folder(name: str) -> Path:
    """runs/NAME, or the first runs/NAME-2, -3, ... that is free."""
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())


def train(data: Listing | ShardIndex, recipe: Recipe, folder: Path, *, score_test: bool = True) -> RunResult:
    """Train the recipe's network on a data set, of files or of shards, and leave everything in `folder`.

    With several `train.devices` this starts as many processes, unless torchrun or SLURM has started them already.
    Without `score_test` the test videos are left alone: for runs that are compared to choose one of them.

    Raises UserError when the folder holds a run already, another process writes to it, or the data cannot be trained
    on; Interrupted when a signal asked for it, with the state saved that `resume` goes on from.
    """
    if n := processes_to_start(recipe.train):
        return start(n, partial(train, score_test=score_test), data, recipe, folder)
    engine = Engine(recipe.train)
    folder = distributed.gather(folder)[0]
    listing, shards = (data.listing(), data) if isinstance(data, ShardIndex) else (data, None)
    listing = _refuse_or_split(listing, shards, recipe)
    with _alone_in(folder):
        if distributed.rank() == 0:
            if holds_run(folder):
                raise UserError(f"{folder} holds a run already; go on with --resume, or choose another --out")
            start_folder(folder, recipe, listing.items, shards)
        return _run(listing, shards, recipe, folder, engine, resume=False, score_test=score_test)


def resume(folder: Path, *, score_test: bool = True) -> RunResult:
    """Go on with the run in `folder` from the last state it saved, with its own recipe, videos and split.

    Raises UserError when there is nothing to go on from, and as `train` does.
    """
    recipe, listing, shards = read_folder(folder)
    if n := processes_to_start(recipe.train):
        return start(n, partial(resume, score_test=score_test), folder)
    engine = Engine(recipe.train)
    with _alone_in(folder):
        return _run(listing, shards, recipe, folder, engine, resume=True, score_test=score_test)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Nobody else writes to the folder meanwhile; a full disk is told in one line."""
    with owned(folder) if distributed.rank() == 0 else nullcontext():
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            where = error.filename or folder
            raise UserError(
                f"no room to write {where} ({error.strerror}): make some, and go on with --resume --out {folder}"
            ) from error


def _run(
    listing: Listing,
    shards: ShardIndex | None,
    recipe: Recipe,
    folder: Path,
    engine: Engine,
    *,
    resume: bool,
    score_test: bool,
) -> RunResult:
    with stop_requests() as stop:
        log.info((shards or listing).describe())
        videos = RunVideos.of(listing, shards, recipe)
        parts, classes = videos.parts, videos.classes
        model, kwargs = _build_model(recipe, classes)
        if recipe.model.pretrained and not resume:
            _warm_start(model, recipe)
        learner = Learner(model, recipe, classes, engine, videos.class_counts())
        weights = Checkpoint(model, recipe.model.name, kwargs, classes, recipe.preprocessing(), {})
        history = History(folder, weights, recipe.train.epochs)
        choosing = f"choosing the best epoch on {len(parts['val'])}" if parts["val"] else "keeping the last epoch"
        log.info(f"training {recipe.model.name} on {len(parts['train'])} videos, {choosing}: {folder}")
        _fit(learner, videos, history, stop, resume=resume)
        problems = _tell_problems(learner.account, parts)
        best = load_weights(folder)
        scores = _score(best, videos, engine.device) if parts["test"] and score_test else None
        problems |= scores.unreadable if scores else {}
        for line in videos.reader.problems() if videos.reader else ():
            log.info(line)
        if distributed.rank() == 0:
            _write_results(folder, best, scores, problems)
    return RunResult(folder, scores, problems)


# The pieces of a run


def _build_model(recipe: Recipe, classes: Sequence[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The network, seeded, and the arguments that make it again. The recipe's size goes into the network's."""
    torch.manual_seed(recipe.train.seed)
    kwargs = recipe.model_kwargs()
    return create_model(recipe.model.name, len(classes), **kwargs), kwargs


def _warm_start(model: nn.Module, recipe: Recipe) -> None:
    for line in load_pretrained(model, recipe.model.pretrained, recipe.model.name).lines():
        log.info(f"started from {recipe.model.pretrained}: {line}")


def _fit(learner: Learner, videos: RunVideos, history: History, stop: StopRequests, *, resume: bool) -> None:
    loop = Loop(learner, *videos.batches(), history.folder / "last", history.add, stop)
    learner.account.failures |= videos.unpacked()
    if resume:
        loop.resume()
        history.keep(loop.epoch)
        log.info(f"going on after {loop.epoch} epochs and {loop.step} of {len(loop.train_batches)} batches")
    try:
        with run_log(learner.recipe, history.folder) as tracker:
            loop.run(tracker)
    except BadVideoError as error:
        key = "on_unreadable" if error.split == "train" else "bad_scored"
        raise UserError(f"{videos.parts[error.split][error.index].path}: {error}; data.{key} is fail") from error
    except DivergedError as error:
        names = ", ".join(str(videos.parts["train"][index].path) for index in error.indices)
        raise UserError(
            f"{error} at batch {loop.step + 1} of epoch {loop.epoch + 1}; lower optim.lr, or look at its videos with "
            f"msfnet doctor: {names}"
        ) from error
    except ReaderDiedError as error:
        raise UserError(f"{error}; go on with --resume --out {history.folder}") from error
    n_videos = len(videos.parts["train"])
    if len(learner.account.failures) == n_videos:
        raise UserError(f"none of the {n_videos} training videos could be read; see msfnet doctor for the reasons")


def _tell_problems(account: Account, parts: dict[str, list[VideoItem]]) -> dict[str, str]:
    """Name what was wrong with videos in training; returns the reason of each that could not be read."""
    failed = {str(parts["train"][i].path): reason for i, reason in account.failures.items()}
    for path, reason in failed.items():
        log.info(f"skipped in training: {path}: {reason}")
    unscored = {str(parts["val"][i].path): reason for i, reason in account.val_failures.items()}
    for path, reason in unscored.items():
        log.info(f"counted as wrong in validation: {path}: {reason}")
    for i, warning in account.warnings.items():
        log.info(f"used in part: {parts['train'][i].path}: {warning}")
    if short := len(account.padded):
        log.info(f"{short} training videos are shorter than a clip; their last frame was repeated")
    return failed | unscored


def _score(weights: Checkpoint, videos: RunVideos, device: torch.device) -> EvalResult:
    """Score the best weights once, with the recipe's views."""
    data = videos.recipe.data
    scores = evaluate(
        weights.model.to(device),
        weights.classes,
        weights.preprocessing,
        videos.parts["test"],
        reader=videos.reader,
        workers=data.num_workers,
        shards=videos.shards,
        on_unreadable=data.on_unreadable_eval,
    )
    log.info(
        f"test: {scores.n_videos} videos, clip top-1 {scores.clip['top1']:.1%}, video top-1 {scores.video['top1']:.1%} "
        f"over {scores.views} views"
    )
    return scores


def _write_results(folder: Path, best: Checkpoint, scores: EvalResult | None, problems: dict[str, str]) -> None:
    if scores:
        write_text(folder / SCORES, json.dumps(scores.to_dict(), indent=2, ensure_ascii=False))
        save_weights(folder / WEIGHTS, replace(best, notes={**best.notes, "test": scores.video}))
    write_problems(folder, problems)
    report_run(folder)


def _refuse_or_split(listing: Listing, shards: ShardIndex | None, recipe: Recipe) -> Listing:
    """Refuse what cannot be trained; returns the listing with every item's split."""
    if shards:  # whose split was drawn when they were written
        check_format(shards, recipe.preprocessing())
        if recipe.data.class_balance:
            raise UserError(
                f"expected data.class_balance of 0 with shards, found {recipe.data.class_balance}: they are read in their own "
                "order; train on the files, or with train.loss=class_weighted"
            )
        items = list(listing.items)
    else:
        items = resolve_splits(listing.items, recipe.data, recipe.train.seed, official=listing.official)
    trained = {item.label for item in items if item.split == "train"}
    if len(trained) < 2:
        raise UserError(f"expected training videos of at least 2 classes, found {len(trained)}")
    if untrained := sorted(set(listing.classes) - trained):
        raise UserError(f"class {untrained[0]} has no training video, only others; move some to train or leave it out")
    mirrored_classes(recipe.augment.flip_pairs, listing.classes)  # refuses labels that no class has
    _refuse_batch(recipe.train, from_shards=shards is not None)
    require_trackers(recipe.train.loggers)
    with torch.device("meta"):  # a network that cannot be made is refused before anything is written
        model = create_model(recipe.model.name, len(trained), **recipe.model_kwargs())
        freeze(model, recipe.optim.freeze)
    if best_device().type == "cpu":
        _refuse_precision(recipe.train.precision, model)
    return replace(listing, items=tuple(items))


def _refuse_precision(precision: str, model: Any) -> None:
    """CPUs have no fp16 training, and bf16 gradients only where no kernel is longer than the clip."""
    if precision == "16-mixed":
        raise UserError("expected train.precision 32-true or bf16-mixed without a GPU, found 16-mixed")
    if precision == "bf16-mixed" and kernel_exceeds_frames(model, model.input_shape):
        raise UserError(
            "expected train.precision 32-true, found bf16-mixed: without a GPU this network needs more frames for it "
            "(clip.num_frames), or an MSF network of at least 3 frames in its place"
        )


def _refuse_batch(train: Train, *, from_shards: bool) -> None:
    """Every process and every part of a step needs two clips: norms go by several."""
    least = 2 * distributed.count() * train.micro_batches
    if train.batch_size < least:
        raise UserError(
            f"expected train.batch_size of {least} or more (2 clips for each of {distributed.count()} processes x "
            f"{train.micro_batches} parts), found {train.batch_size}"
        )
    if from_shards and train.batch_size % distributed.count():
        raise UserError(
            f"expected train.batch_size to divide among {distributed.count()} processes when they read shards, "
            f"found {train.batch_size}"
        )
