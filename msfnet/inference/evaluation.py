"""Score a network on labeled videos: clip and video accuracy side by side, per class and as a confusion matrix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from msfnet import distributed, metrics
from msfnet.data.annotations.readers import Listing, read_dataset, read_manifest
from msfnet.data.dataset import EvalSampler, EvalVideos, make_batches, open_reader
from msfnet.data.shards.index import ShardIndex, is_shards, read_shards
from msfnet.data.shards.stream import EvalShards, make_shard_batches
from msfnet.data.video.decoders import Reader
from msfnet.exporting.load import load_network
from msfnet.inference.views import best_device, score_views
from msfnet.recipe import Data, Train, load_recipe
from msfnet.types import EvalResult, Preprocessing, ScoredVideo, UserError, VideoItem, Views

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

SPLIT, RECIPE = "split.csv", "recipe.toml"  # in a run folder: the split and the recipe that it was trained with


def evaluate(
    model: nn.Module,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    items: Sequence[VideoItem],
    *,
    views: Views | None = None,
    reader: Reader | None = None,
    shards: ShardIndex | None = None,
    batch: int = 8,
    workers: int = 2,
    on_unreadable: str = "count_wrong",
) -> EvalResult:
    """Score every item once. `views` default to the network's own. The network is put in evaluation mode.

    With `shards`, the split of theirs that the items are of is scored, and read from there. Several processes each
    score a part, and all get the scores of the whole.

    A video that cannot be read counts as wrong and is named with its reason; none is replaced by another. With
    `on_unreadable` "fail" it ends the evaluation instead.

    Raises UserError then, and when there is nothing to score or a label is not among the network's classes.
    """
    if not items:
        raise UserError("expected videos to evaluate, found none")
    unknown = sorted({item.label for item in items} - set(classes))
    if unknown:
        raise UserError(
            f"the data has {len(unknown)} classes that the network does not know (first: {unknown[0]}); "
            f"it knows {', '.join(classes)}"
        )
    views = views or preprocessing.views
    model.eval()
    own = distributed.rank(), distributed.count()
    if shards:
        split = items[0].split or "test"
        streamed = EvalShards(
            shards, split, classes, preprocessing, batch=batch, clips=views.clips, rank=own[0], ranks=own[1]
        )
        items, batches = streamed.items, make_shard_batches(streamed, workers)
    else:
        videos = EvalVideos(items, classes, preprocessing, reader, clips=views.clips)
        batches = make_batches(videos, EvalSampler(len(items), batch * own[1], *own), workers)
    part = _Part([], [], {}, [])
    for samples in batches.epoch():
        part.failed |= dict(samples["failures"])
        if part.failed and on_unreadable == "fail":
            break
        part.padded += samples["padded"]
        part.indices += samples["indices"]
        if samples["clips"] is not None:
            part.probabilities.append(score_views(model, samples["clips"], preprocessing, views.crops).cpu().numpy())
    parts = distributed.gather(part)
    if on_unreadable == "fail" and (failed := {index: reason for own in parts for index, reason in own.failed.items()}):
        index, reason = next(iter(failed.items()))
        raise UserError(f"{items[index].path}: {reason}; data.on_unreadable_eval is fail")
    return _scores(parts, items, tuple(classes), views)


@dataclass
class _Part:
    """What one process found: probabilities N V K of the videos at `indices` N, and which others there were."""

    indices: list[int]
    probabilities: list[npt.NDArray[np.float32]]
    failed: dict[int, str]
    padded: list[int]


def evaluate_data(
    weights: Path, data: Path | str, *, annotations: Path | None, split: int, views: Views | None
) -> EvalResult:
    """Score a weights file or a run folder on a data set's test videos: see `held_out` for which those are.

    Where torchrun or SLURM started several processes, each scores its part. Videos are read as the run folder's recipe
    says (decoder, cache, workers, bad videos), else as by default.
    """
    device = best_device()
    if distributed.announced():
        from msfnet.training.engine import Engine  # takes seconds to import

        device = Engine(Train()).device
    loaded = load_network(weights)
    shards = read_shards(str(data)) if is_shards(str(data)) else None
    listing = shards.listing() if shards else read_dataset(Path(data), annotations, split)
    log.info((shards or listing).describe())
    items, which = held_out(listing, weights if weights.is_dir() else weights.parent)
    log.info(f"scoring {len(items)} videos: {which}")
    model, preprocessing = loaded.model.to(device), loaded.preprocessing
    data_keys = load_recipe(str(weights / RECIPE)).data if (weights / RECIPE).is_file() else Data()
    reader = None if shards else open_reader(data_keys, preprocessing, items)
    scores = evaluate(
        model,
        loaded.classes,
        preprocessing,
        items,
        views=views,
        reader=reader,
        shards=shards,
        workers=data_keys.num_workers,
        on_unreadable=data_keys.on_unreadable_eval,
    )
    for line in reader.problems() if reader else ():
        log.info(line)
    return scores


def held_out(listing: Listing, run_folder: Path) -> tuple[list[VideoItem], str]:
    """The videos to score, and why these: the test split, else the validation split, else all.

    Where the data has no split, videos that the run folder's own split trained or chose on are left out.
    """
    for name in ("test", "val"):
        if items := listing.in_split(name):
            return items, f"the {name} split"
    recorded = run_folder / SPLIT
    if recorded.is_file():
        seen = {item.path.resolve() for item in read_manifest(recorded).items if item.split != "test"}
        if items := [item for item in listing.items if item.path.resolve() not in seen]:
            return items, f"all that {recorded} did not train or choose on"
    return list(listing.items), "all"


def _scores(parts: Sequence[_Part], items: Sequence[VideoItem], classes: tuple[str, ...], views: Views) -> EvalResult:
    """The scores of all parts together, each video once and in the order of `items`."""
    order = np.array([index for part in parts for index in part.indices], dtype=np.int64)
    none = np.zeros((0, 1, len(classes)), np.float32)
    probabilities = np.concatenate([none, *(p for part in parts for p in part.probabilities)][bool(len(order)) :])
    in_order = np.argsort(order)
    order, probabilities = order[in_order], probabilities[in_order]
    failed = {str(items[index].path): part.failed[index] for part in parts for index in sorted(part.failed)}
    labels = np.array([classes.index(items[index].label) for index in order], dtype=np.int64)
    video_scores = metrics.average_views(probabilities)
    n_views = probabilities.shape[1]
    per_class = {}
    for number, label in enumerate(classes):
        n = sum(item.label == label for item in items)
        correct = int(metrics.in_top(video_scores[labels == number], labels[labels == number], 1).sum())
        if n:
            per_class[label] = {"n": n, "top1": correct / n}
    return EvalResult(
        classes=classes,
        views=views,
        clip=metrics.top_k(probabilities.reshape(-1, len(classes)), np.repeat(labels, n_views), len(failed) * n_views),
        video=metrics.top_k(video_scores, labels, len(failed)),
        per_class=per_class,
        confusion=metrics.confusion(video_scores.argmax(1), labels, len(classes)),
        n_videos=len(items),
        unreadable=failed,
        padded=tuple(str(items[index].path) for part in parts for index in sorted(part.padded)),
        videos=_answers(video_scores, order.tolist(), items, classes),
    )


def _answers(
    video_scores: npt.NDArray[np.float32], order: list[int], items: Sequence[VideoItem], classes: tuple[str, ...]
) -> tuple[ScoredVideo, ...]:
    """Every item's answer, in the order of the items; `video_scores` has a row for each of `order`."""
    rows = {index: row for row, index in enumerate(order)}
    answers = []
    for index, item in enumerate(items):
        path = str(item.path.resolve()) if item.path.exists() else item.path.as_posix()  # in shards, a name
        row = video_scores[rows[index]] if index in rows else None
        if row is None or not np.isfinite(row).all():  # failed, or a network that has diverged
            answers.append(ScoredVideo(path, item.label, None, 0.0))
        else:
            answers.append(ScoredVideo(path, item.label, classes[int(row.argmax())], float(row.max())))
    return tuple(answers)
