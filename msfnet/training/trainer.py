"""Trains a network on a dataset, from the recipe to the scores of its best weights, or resumes such a run."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import nn

from msfnet import distributed
from msfnet.data.augment.augmentation import Transform
from msfnet.data.dataset import ClipLoader, Dataset
from msfnet.data.loading import Batches, WorkerDiedError
from msfnet.inference.evaluation import PROTOCOLS, evaluate
from msfnet.models.checkpoint import Checkpoint, TrainedOn, load_weights, save_weights
from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model
from msfnet.recipe import Recipe
from msfnet.run_folder import (
    CHECKPOINT,
    WEIGHTS,
    Run,
    can_resume,
    locked,
    resume_command,
    write_result,
    write_unreadable,
)
from msfnet.training.checks import check_run
from msfnet.training.engine import Engine
from msfnet.training.history import History
from msfnet.training.learner import Learner
from msfnet.training.loggers import run_loggers
from msfnet.training.loop import DivergedError, Loop, UnreadableVideoError
from msfnet.training.report import write_report
from msfnet.training.run_data import check_out, find_dataset, start_folder
from msfnet.training.signals import SignalHandler, handle_signals
from msfnet.training.statistics import VideoProblems
from msfnet.types import EvalResult, UserError

log = logging.getLogger(__name__)

# What the system says when a file has no space: on the disk, in the user's quota, or below the largest allowed size.
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


def new_run_folder(name: str) -> Path:
    """Return runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that does not exist."""
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())


def train(
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    score_test: bool = True,
    transform: Transform | None = None,
    device: str | torch.device | None = None,
) -> Run:
    """Train the network of a recipe on a dataset.

    Processes that torchrun or SLURM started train together; each of them must call this function.

    Args:
        data: The dataset. Where its videos have no split, one is drawn as the recipe says.
        recipe: All settings of the run.
        folder: The run folder, which is created. The first process decides it for all.
        score_test: Whether the best weights are evaluated on the test videos in the end. Runs that are compared to
            choose one of them leave these videos alone.
        transform: The user's own transform of training clips, applied before the augmentation.
        device: Where to train; by default a GPU if there is one.

    Returns:
        The run, whose attributes are read from its folder.

    Raises:
        UserError: The folder is a file or holds a run, another process writes to it, or the recipe cannot be trained
            on the data.
        Interrupted: A signal arrived. The state is saved for `resume`.
    """
    engine = Engine(recipe.train, device)
    folder = distributed.gather(folder)[0]
    distributed.on_first(partial(check_out, folder))
    data = data.resolve_splits(recipe.data, recipe.train.seed)
    log.info(data.describe())
    check_run(data, recipe, engine.device)
    batches = _Batches.of(data, recipe)
    with _writing(folder):
        distributed.on_first(partial(start_folder, folder, recipe, data, transform))
        return _run(data, batches, recipe, folder, engine, transform, resumed=False, score_test=score_test)


def resume(
    folder: Path,
    data: Dataset | None = None,
    *,
    score_test: bool = True,
    transform: Transform | None = None,
    device: str | torch.device | None = None,
) -> Run:
    """Resume a run from its last checkpoint, with its recipe and split. See `train` for the other arguments.

    Args:
        folder: The run folder.
        data: The dataset, where it was moved since, or where it is one of the user's own in Python. Its videos must be
            those that the run started with, by path below the dataset, label and content.
        score_test: See `train`.
        transform: The transform that the run started with.
        device: See `train`.

    Raises:
        UserError: There is no checkpoint, or data or transform are not those of the run; and as `train` does.
        Interrupted: See `train`.
    """
    distributed.join()
    recipe, data = distributed.on_first(partial(find_dataset, folder, data, transform))
    engine = Engine(recipe.train, device)
    log.info(data.describe())
    batches = _Batches.of(data, recipe)
    with _writing(folder):
        return _run(data, batches, recipe, folder, engine, transform, resumed=True, score_test=score_test)


@dataclass(frozen=True)
class _Batches:
    """The loader of a dataset, and the batches of an epoch; `val` is None without validation videos."""

    loader: ClipLoader
    train: Batches
    val: Batches | None

    @classmethod
    def of(cls, data: Dataset, recipe: Recipe) -> _Batches:
        loader = data.open(recipe.data, recipe.preprocessing())
        batch_size, val = recipe.train.batch_size, data.in_split("val")
        return cls(
            loader,
            loader.train_batches(sampling=recipe.clip.train_sampling, batch_size=batch_size, seed=recipe.train.seed),
            loader.eval_batches(val, clips=1, batch_size=batch_size) if val else None,
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Lock the folder for all processes of the run; tell how to resume after an interrupt or on a full disk."""
    with ExitStack() as stack:

        def lock() -> None:
            stack.enter_context(locked(folder))

        distributed.on_first(lock)
        try:
            yield
        except KeyboardInterrupt as stop:
            if can_resume(folder):
                stop.add_note(f"resume with {resume_command(folder)}")
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"expected space to write {error.filename or folder}, found none ({error.strerror}); free some, and "
                f"resume with {resume_command(folder)}"
            ) from error


def _run(
    data: Dataset,
    batches: _Batches,
    recipe: Recipe,
    folder: Path,
    engine: Engine,
    transform: Transform | None,
    *,
    resumed: bool,
    score_test: bool,
) -> Run:
    with handle_signals() as signals:
        train_items, test_items = data.in_split("train"), data.in_split("test") if score_test else ()
        torch.manual_seed(recipe.train.seed)
        kwargs = recipe.model_kwargs()
        model = create_model(recipe.model.name, len(data.classes), **kwargs)
        if recipe.model.pretrained and not resumed:
            _load_pretrained(model, recipe)
        labels = Counter(item.label for item in train_items)
        learner = Learner(model, recipe, data.classes, engine, [labels[label] for label in data.classes], transform)
        checkpoint = Checkpoint(
            model,
            recipe.model.name,
            kwargs,
            data.classes,
            recipe.preprocessing(),
            notes={},
            trained_on=TrainedOn(data.source, len(train_items), len(data.classes)),
        )
        history = History(folder, checkpoint, recipe.train.epochs)
        _fit(learner, data, batches, history, signals, resumed=resumed, scored=bool(test_items))
        unreadable = _report_problems(learner.problems, data)
        best = load_weights(folder)
        result = _score(best, data, batches.loader, recipe, engine) if test_items else None
        unreadable |= result.unreadable if result else {}
        for line in batches.loader.problems():
            log.warning(line)
        if distributed.rank() == 0:
            _write_results(folder, best, result, unreadable)
    return Run(folder)


def _load_pretrained(model: nn.Module, recipe: Recipe) -> None:
    for line in load_pretrained(model, recipe.model.pretrained, recipe.model.name).lines():
        log.info(f"pretrained weights of {recipe.model.pretrained}: {line}")


def _fit(
    learner: Learner,
    data: Dataset,
    batches: _Batches,
    history: History,
    signals: SignalHandler,
    *,
    resumed: bool,
    scored: bool,
) -> None:
    """Train to the last epoch. What ends the run becomes a line for the user; `scored` tells what follows."""
    train_items, folder = data.in_split("train"), history.folder
    learner.problems.unreadable |= {
        i: data.unreadable[item] for i, item in enumerate(train_items) if item in data.unreadable
    }
    loop = Loop(learner, batches.train, batches.val, folder / CHECKPOINT, history.add, signals)
    if resumed:
        loop.resume()
        history.resume(loop.epoch)
    if loop.epoch < loop.epochs:
        n_val = len(data.in_split("val"))
        selection = f"best epoch by {n_val} validation videos" if n_val else "last epoch"
        log.info(
            f"training {learner.recipe.model.name} on {len(train_items)} videos, keeping the {selection}: {folder}"
        )
        if resumed:
            log.info(f"resuming from epoch {loop.epoch + 1}{_position(loop)}")
    else:
        log.info(f"the run is finished: {loop.epochs} epochs{'; scoring it again' if scored else ''}")
    try:
        with run_loggers(learner.recipe, folder) as log_numbers:
            loop.run(log_numbers)
    except UnreadableVideoError as error:
        key = "on_unreadable_train" if error.split == "train" else "on_unreadable_eval"
        raise UserError(f"{data.in_split(error.split)[error.index].path}: {error}; data.{key} is fail") from error
    except DivergedError as error:
        names = ", ".join(str(train_items[index].path) for index in error.indices)
        raise UserError(f"{error}; lower optim.lr, or examine its videos with msfnet doctor: {names}") from error
    except WorkerDiedError as error:
        raise UserError(f"{error}; resume with {resume_command(folder)}") from error
    if len(learner.problems.unreadable) == len(train_items):
        raise UserError(
            f"expected training videos that can be read, found none among {len(train_items)}; see msfnet "
            "doctor for the reasons"
        )


def _position(loop: Loop) -> str:
    """Return what comes next in the epoch of a resumed run."""
    n_batches = len(loop.train_batches)
    if loop.step < n_batches:
        return f", batch {loop.step + 1} of {n_batches}"
    return f": its {n_batches} batches are done" + (", validation follows" if loop.val_batches else "")


def _report_problems(problems: VideoProblems, data: Dataset) -> dict[str, str]:
    """Log the problems of training and validation videos; return the reasons of those that could not be read."""
    train_items, val_items = data.in_split("train"), data.in_split("val")
    skipped = {str(train_items[i].path): reason for i, reason in problems.unreadable.items()}
    for path, reason in skipped.items():
        log.warning(f"skipped in training: {path}: {reason}")
    wrong = {str(val_items[i].path): reason for i, reason in problems.val_unreadable.items()}
    for path, reason in wrong.items():
        log.warning(f"counted as wrong in validation: {path}: {reason}")
    for i, warning in problems.warnings.items():
        log.warning(f"read in part: {train_items[i].path}: {warning}")
    if n := len(problems.padded):
        log.info(f"{n} training videos are shorter than a clip; their last frame was repeated")
    return skipped | wrong


def _score(checkpoint: Checkpoint, data: Dataset, loader: ClipLoader, recipe: Recipe, engine: Engine) -> EvalResult:
    """Evaluate the best weights on the test videos, with the views of the recipe."""
    result = evaluate(
        checkpoint.model.to(engine.device),
        checkpoint.classes,
        checkpoint.preprocessing,
        data.in_split("test"),
        loader,
        protocol=PROTOCOLS["test"],
        on_unreadable=recipe.data.on_unreadable_eval,
    )
    for path, reason in result.unreadable.items():
        log.warning(f"counted as wrong in the test: {path}: {reason}")
    log.info(
        f"test: {result.n_videos} videos, clip top-1 {result.clip.top1:.1%}, video top-1 {result.video.top1:.1%} "
        f"over {result.views} views"
    )
    return result


def _write_results(folder: Path, best: Checkpoint, result: EvalResult | None, unreadable: dict[str, str]) -> None:
    if result:
        write_result(folder, result)
        save_weights(folder / WEIGHTS, replace(best, notes={**best.notes, "test": result.video.to_dict()}))
    write_unreadable(folder, unreadable)
    write_report(folder)
