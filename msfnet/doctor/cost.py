"""What training on a data set will cost: counted from the recipe and the videos, timed by one short training step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from msfnet.data.splits import assign_splits
from msfnet.doctor.file_info import VideoFacts
from msfnet.models.registry import create_model, summarize
from msfnet.recipe import Recipe
from msfnet.types import VideoItem

STEP_MACS = 30e9  # about what the forward pass of the timed step may take on a CPU; a GPU takes the recipe's batch
BACKWARD = 2  # times the forward pass's multiply-adds, for the gradients of inputs and weights


@dataclass(frozen=True)
class TrainingCost:
    """`multiply_adds` and `train_seconds` are those of the whole training, without reading the videos.

    `decode_core_seconds` is what decoding every video once took one core, `cache_bytes` what the frames of all videos
    take at the recipe's size, against the `cache_budget_bytes` that it allows.
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
    cache_budget_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """In two sentences."""
        gigabytes, budget = self.cache_bytes / 2**30, self.cache_budget_bytes / 2**30
        cached = "fit into the cache" if gigabytes <= budget else f"are more than the cache's {budget:.1f} GB"
        if not budget:
            cached = "are not kept"
        return (
            f"{self.epochs} epochs of {self.clips_per_epoch} clips with {self.model} are {self.multiply_adds:.1e} "
            f"multiply-adds, {_duration(self.train_seconds)} on this {self.device}; decoding every video once takes "
            f"one core {_duration(self.decode_core_seconds)}, and the frames ({gigabytes:.2f} GB) {cached}"
        )


def estimate_cost(
    recipe: Recipe, items: Sequence[VideoItem], facts: Mapping[Path, VideoFacts], device: torch.device
) -> TrainingCost:
    """The cost of the recipe on these videos. Raises UserError for a network that cannot be made."""
    classes = len({item.label for item in items})
    name, kwargs = recipe.model.name, recipe.model_kwargs()
    summary = summarize(name, classes, **kwargs)
    data = recipe.data
    split = assign_splits(items, data.val_fraction, recipe.train.seed, data.group_split)
    clips = sum(item.split == "train" for item in split)
    passes = recipe.train.epochs * clips
    batch = recipe.train.batch_size
    if device.type == "cpu":
        batch = min(batch, max(2, int(STEP_MACS / summary.macs)))
    per_clip = _time_step(recipe, classes, batch, device)
    frame_format = recipe.preprocessing().frame_format
    width, height = frame_format.resize
    found = [facts[path] for path in {item.path for item in items}]
    return TrainingCost(
        model=name,
        device="GPU" if device.type == "cuda" else "CPU",
        epochs=recipe.train.epochs,
        clips_per_epoch=clips,
        params=summary.params,
        multiply_adds=float(summary.macs * (1 + BACKWARD) * passes),
        seconds_per_clip=per_clip,
        train_seconds=per_clip * passes,
        decode_core_seconds=sum(f.cpu_seconds for f in found),
        cache_bytes=sum(f.frames_at(frame_format.fps) for f in found) * width * height * 3,
        cache_budget_bytes=0 if recipe.data.cache == "off" else int(recipe.data.cache_gib * 2**30),
    )


def _time_step(recipe: Recipe, classes: int, batch: int, device: torch.device) -> float:
    """Seconds that a forward and backward pass takes for one clip: the better of two, after one to warm up."""
    model = create_model(recipe.model.name, classes, **recipe.model_kwargs()).to(device).train()
    data, size = recipe.preprocessing(), recipe.clip.crop_size
    clips = torch.rand(batch, data.channels, recipe.clip.num_frames, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        F.cross_entropy(model(clips), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / batch


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
