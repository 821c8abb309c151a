"""Estimates the cost of training on a dataset: counted from the recipe and the videos, timed with a few short steps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from msfnet.data.cache.frame_cache import JPEG_RATIO, choose_codec
from msfnet.data.splits import assign_splits
from msfnet.doctor.file_info import VideoInfo
from msfnet.models.registry import create_model, summarize
from msfnet.recipe import Recipe
from msfnet.types import VideoItem

STEP_MACS = 30e9  # approximate size of a timed forward pass on a CPU; a GPU takes the batch size of the recipe
BACKWARD = 2  # cost of the backward pass, in forward passes: gradients of the inputs and of the weights
GIB = 2**30


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training with a recipe.

    Attributes:
        model: Name of the network.
        device: `CPU` or `GPU`.
        epochs: Epochs of the recipe.
        clips_per_epoch: Training videos, each of which gives one clip per epoch.
        params: Parameters of the network.
        multiply_adds: Multiply-adds of all forward and backward passes.
        seconds_per_clip: Measured duration of a training step, divided by the batch size.
        train_seconds: Duration of all training steps, without reading videos.
        decode_core_seconds: CPU time that decoding every video once took.
        cache_bytes: Size of the decoded frames of all videos, as the frame cache stores them.
        cache_codec: `raw` or `jpeg`; `off` if the recipe uses no cache.
        cache_budget_bytes: Size limit of the frame cache; 0 if the recipe uses none.
    """

    model: str
    device: str
    epochs: int
    clips_per_epoch: int
    params: int
    multiply_adds: float
    seconds_per_clip: float
    train_seconds: float
    decode_core_seconds: float
    cache_bytes: int
    cache_codec: str
    cache_budget_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the values as `doctor --json` prints them."""
        return asdict(self)

    def describe(self) -> str:
        """Return the cost in three sentences."""
        return (
            f"{self.epochs} epochs of {self.clips_per_epoch} clips with {self.model} take {self.multiply_adds:.1e} "
            f"multiply-adds, about {_format_duration(self.train_seconds)} on this {self.device} without reading the "
            f"videos. Decoding every video once takes {_format_duration(self.decode_core_seconds)} on one CPU core. "
            f"{self._describe_cache()}"
        )

    def _describe_cache(self) -> str:
        size = f"The decoded frames take {_format_size(self.cache_bytes)}"
        if self.cache_codec == "off":
            return f"{size} and are not cached."
        size += " as JPEG" if self.cache_codec == "jpeg" else ""
        fits = "fit into" if self.cache_bytes <= self.cache_budget_bytes else "do not fit into"
        return f"{size} and {fits} the frame cache of {self.cache_budget_bytes / GIB:g} GiB."


def estimate_cost(
    recipe: Recipe, items: Sequence[VideoItem], info: Mapping[Path, VideoInfo], device: torch.device
) -> TrainingCost:
    """Estimate the cost of training with a recipe.

    Args:
        recipe: The recipe.
        items: The labeled videos of the dataset; those without a split get one as in training.
        info: The description of every file.
        device: Where training steps are timed.

    Raises:
        UserError: The recipe's network cannot be built.
    """
    n_classes = len({item.label for item in items})
    summary = summarize(recipe.model.name, n_classes, **recipe.model_kwargs())
    split = assign_splits(items, recipe.data.val_fraction, recipe.train.seed, recipe.data.group_split)
    clips = sum(item.split == "train" for item in split)
    passes = recipe.train.epochs * clips
    batch_size = recipe.train.batch_size
    if device.type == "cpu":
        batch_size = min(batch_size, max(2, int(STEP_MACS / summary.macs)))
    seconds_per_clip = _time_step(recipe, n_classes, batch_size, device)
    files = [info[path] for path in {item.path for item in items}]
    frame_format = recipe.preprocessing().frame_format
    width, height = frame_format.resize
    raw_bytes = sum(file.frames_at(frame_format.fps) for file in files) * width * height * 3
    budget_bytes = 0 if recipe.data.cache == "off" else int(recipe.data.cache_gib * GIB)
    codec = "off" if recipe.data.cache == "off" else choose_codec(recipe.data.cache_codec, raw_bytes, budget_bytes)
    return TrainingCost(
        model=recipe.model.name,
        device="GPU" if device.type == "cuda" else "CPU",
        epochs=recipe.train.epochs,
        clips_per_epoch=clips,
        params=summary.params,
        multiply_adds=float(summary.macs * (1 + BACKWARD) * passes),
        seconds_per_clip=seconds_per_clip,
        train_seconds=seconds_per_clip * passes,
        decode_core_seconds=sum(file.cpu_seconds for file in files),
        cache_bytes=int(raw_bytes * JPEG_RATIO) if codec == "jpeg" else raw_bytes,
        cache_codec=codec,
        cache_budget_bytes=budget_bytes,
    )


def _time_step(recipe: Recipe, n_classes: int, batch_size: int, device: torch.device) -> float:
    """Return the seconds per clip of a forward and backward pass: the minimum of two, after one that is not counted."""
    model = create_model(recipe.model.name, n_classes, **recipe.model_kwargs()).to(device).train()
    clips = torch.rand(batch_size, *recipe.preprocessing().input_shape, device=device)  # N C T H W
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        F.cross_entropy(model(clips), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / batch_size


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / 2**20:.1f} MiB"
