"""Score a network on labeled videos: clip and video accuracy side by side, per class and as a confusion matrix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msfnet import distributed, metrics
from msfnet.data.annotations.readers import read_dataset
from msfnet.data.cache.content import fingerprint
from msfnet.data.dataset import ClipLoader, Dataset, path_of
from msfnet.inference.network import load_network, score_views
from msfnet.models.checkpoint import Checkpoint
from msfnet.recipe import Data, load_recipe
from msfnet.run_folder import RECIPE, SPLIT, Run, recorded_splits, resolve_weights
from msfnet.types import Accuracy, EvalResult, Floats, Preprocessing, ScoredVideo, UserError, VideoItem, Views

log = logging.getLogger(__name__)

# What `EvalResult.protocol` says of the videos that were scored.
PROTOCOLS = {
    "test": "test split",
    "val": "validation split",
    "unseen": "videos that the run did not train on",
    "all": "all videos: no held-out videos are known",
    "train": "training videos",
}


def evaluate_dataset(
    weights: str | Path | Run | Checkpoint,
    data: str | Path | Dataset,
    *,
    views: Views | str | None = None,
    annotations: Path | None = None,
    split: int = 1,
    device: str | torch.device | None = None,
) -> EvalResult:
    """Score a network on the held-out videos of a dataset: see `held_out` for which those are.

    Where torchrun or SLURM started several processes, each scores its part, and all return the same result. Videos are
    read as the recipe in the weights' folder says (decoder, cache, workers, unreadable videos), else by the defaults.

    Args:
        weights: What `load_network` takes.
        data: A path or URL in any form that `read_dataset` takes, or a dataset.
        views: Clips and crops of each video that are averaged, as in "4x1"; None is what the network was trained for.
        annotations: The folder of the official annotations of `data`.
        split: The number of the official split, where there are several.
        device: See `choose_device`; None is the GPU of this process where there is one.

    Raises:
        UserError: There is nothing to score, or the weights, the data or the device cannot be used.
    """
    distributed.join()
    network, folder = load_network(weights, device), _folder_of(weights)
    dataset = read_dataset(data, annotations, split) if isinstance(data, str | Path) else data
    log.info(dataset.describe())
    items, protocol = held_out(dataset, folder)
    log.info(f"scoring {len(items)} videos ({protocol})")
    settings = load_recipe(str(folder / RECIPE)).data if folder and (folder / RECIPE).is_file() else Data()
    loader = dataset.open(settings, network.preprocessing)
    result = evaluate(
        network.model,
        network.classes,
        network.preprocessing,
        items,
        loader,
        views=Views.parse(views) if isinstance(views, str) else views,
        on_unreadable=settings.on_unreadable_eval,
        protocol=protocol,
    )
    for line in loader.problems():
        log.warning(line)
    return result


def _folder_of(weights: str | Path | Run | Checkpoint) -> Path | None:
    """Return the folder of the weights' file, which is the run folder if a run wrote it; None for weights in memory."""
    if isinstance(weights, Checkpoint):
        return None
    return resolve_weights(weights.folder if isinstance(weights, Run) else Path(weights)).parent


def held_out(dataset: Dataset, run_folder: Path | None) -> tuple[list[VideoItem], str]:
    """Return the videos to score, and their protocol: the test split, else the validation split, else all videos.

    Videos that a run has used are left out, in any split of the dataset: those of its training split always,
    those of its validation split as long as others are left. If no video is left, all are scored as training videos,
    with a warning.

    Args:
        dataset: The videos, with or without splits.
        run_folder: The run that trained the network; None if it is not known.

    Returns:
        Videos, and one of `PROTOCOLS`.
    """
    name = next((name for name in ("test", "val") if dataset.in_split(name)), "all")
    items = list(dataset.items) if name == "all" else dataset.in_split(name)
    if run_folder is None or not (run_folder / SPLIT).is_file():
        return items, PROTOCOLS[name]
    used = recorded_splits(run_folder, items, fingerprint)
    not_trained_on = [item for item, splits in zip(items, used, strict=True) if "train" not in splits]
    unseen = [item for item, splits in zip(items, used, strict=True) if not splits & {"train", "val"}]
    if name == "val" or not unseen:
        unseen, name = not_trained_on, "val"
    if not unseen:
        log.warning(f"these are training videos: the run in {run_folder} trained on all {len(items)} of them")
        return items, PROTOCOLS["train"]
    if len(unseen) < len(items):
        n_left_out = len(items) - len(unseen)
        log.info(f"left out: {n_left_out} videos that the run in {run_folder} trained on or selected its weights by")
    return unseen, PROTOCOLS["unseen" if name == "all" else name]


def evaluate(
    model: nn.Module,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    items: Sequence[VideoItem],
    loader: ClipLoader,
    *,
    protocol: str,
    views: Views | None = None,
    batch_size: int = 8,
    on_unreadable: str = "count_wrong",
) -> EvalResult:
    """Score each video once, by the probabilities of its views and by their average.

    Args:
        model: N C T H W -> logits N K. It is put in evaluation mode.
        classes: Labels of its K outputs.
        preprocessing: The network's preprocessing.
        items: The videos to score.
        loader: Reads clips of the dataset that the videos are of.
        protocol: Which videos these are, one of `PROTOCOLS`.
        views: Clips and crops of each video; None is what the network was trained for.
        batch_size: Videos that each process reads and scores at once.
        on_unreadable: "count_wrong" counts a video that cannot be read as wrong; "fail" ends the evaluation.

    Returns:
        The scores of all videos, the same in every process of a group.

    Raises:
        UserError: There is no video, a label is not among `classes`, or a video cannot be read and `on_unreadable` is
            "fail".
    """
    if not items:
        raise UserError("expected videos to evaluate, found none")
    if unknown := sorted({item.label for item in items} - set(classes)):
        raise UserError(
            f"the data has {len(unknown)} classes that the network does not know (first: {unknown[0]}); "
            f"it knows {', '.join(classes)}"
        )
    views = views or preprocessing.views
    model.eval()
    part = _Part()
    batches = loader.eval_batches(items, clips=views.clips, batch_size=batch_size * distributed.world_size())
    for batch in batches.epoch():
        part.unreadable |= batch.unreadable
        if part.unreadable and on_unreadable == "fail":
            break
        part.padded += batch.padded
        if batch.clips is not None:
            scores = score_views(model, batch.clips, preprocessing, views.crops).cpu().numpy()
            part.scores |= dict(zip(batch.indices, scores, strict=True))
    whole = _Part()
    for other in distributed.gather(part):
        whole = _Part(whole.scores | other.scores, whole.unreadable | other.unreadable, whole.padded + other.padded)
    if whole.unreadable and on_unreadable == "fail":
        index, reason = next(iter(whole.unreadable.items()))
        raise UserError(f"{items[index].path}: {reason}; data.on_unreadable_eval is fail")
    return _summarize(whole, items, tuple(classes), views, protocol)


@dataclass
class _Part:
    """What one process found, by the number of each video: probabilities V K of its views, or why there are none."""

    scores: dict[int, Floats] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    padded: list[int] = field(default_factory=list)


def _summarize(
    part: _Part, items: Sequence[VideoItem], classes: tuple[str, ...], views: Views, protocol: str
) -> EvalResult:
    """Return the result for the videos of all processes, in the order of `items`."""
    indices, n_classes = sorted(part.scores), len(classes)
    n_views = views.clips * views.crops
    view_scores = np.zeros((len(indices), n_views, n_classes), np.float32)  # N V K
    for row, i in enumerate(indices):
        view_scores[row] = part.scores[i]
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.array([numbers[items[i].label] for i in indices], dtype=np.int64)
    scores = metrics.average_views(view_scores)  # N K
    n_unreadable = len(part.unreadable)
    clip = metrics.top_k_accuracy(
        view_scores.reshape(-1, n_classes), np.repeat(labels, n_views), n_unreadable * n_views
    )
    video = metrics.top_k_accuracy(scores, labels, n_unreadable)
    correct = metrics.in_top_k(scores, labels, 1)
    per_class = {}
    for label, number in numbers.items():
        if n := sum(item.label == label for item in items):
            per_class[label] = {"n": n, "top1": int(correct[labels == number].sum()) / n}
    return EvalResult(
        classes=classes,
        views=views,
        clip=Accuracy(clip["top1"], clip["top5"]),
        video=Accuracy(video["top1"], video["top5"], metrics.wilson_interval(int(correct.sum()), len(items))),
        per_class=per_class,
        confusion=metrics.confusion_matrix(scores.argmax(1), labels, n_classes),
        n_videos=len(items),
        unreadable={path_of(items[i]): part.unreadable[i] for i in sorted(part.unreadable)},
        padded=tuple(path_of(items[i]) for i in sorted(part.padded)),
        videos=tuple(_predicted(item, part.scores.get(i), classes) for i, item in enumerate(items)),
        protocol=protocol,
    )


def _predicted(item: VideoItem, view_scores: Floats | None, classes: tuple[str, ...]) -> ScoredVideo:
    """Return the prediction for one video: none where it could not be read or its scores are NaN."""
    scores = None if view_scores is None else metrics.average_views(view_scores[None])[0]
    if scores is None or not np.isfinite(scores).all():
        return ScoredVideo(path_of(item), item.label, None, 0.0)
    return ScoredVideo(path_of(item), item.label, classes[int(scores.argmax())], float(scores.max()))
