"""Checks that a run can be trained, before anything is written."""

from __future__ import annotations

import torch
from torch import nn

from msfnet import distributed
from msfnet.data.augment.augmentation import mirrored_classes
from msfnet.data.dataset import Dataset
from msfnet.models.registry import create_model, kernel_exceeds_frames
from msfnet.recipe import Recipe, Train
from msfnet.training.loggers import require_trackers
from msfnet.training.optim import freeze
from msfnet.types import UserError


def check_run(data: Dataset, recipe: Recipe, device: torch.device) -> None:
    """Refuse data, a network or settings that cannot be trained.

    Args:
        data: The dataset, with a split for every video.
        recipe: All settings of the run.
        device: Where the network is trained.

    Raises:
        UserError: What cannot be trained, and how to fix it.
    """
    trained = {item.label for item in data.in_split("train")}
    if len(trained) < 2:
        raise UserError(f"expected training videos of at least 2 classes, found {len(trained)}")
    if untrained := sorted(set(data.classes) - trained):
        raise UserError(
            f"expected training videos of every class, found none of {untrained[0]}; move some of its videos to the "
            "training set, or leave the class out"
        )
    mirrored_classes(recipe.augment.flip_pairs, data.classes)  # refuses labels that are no class
    _check_batch_size(recipe.train)
    require_trackers(recipe.train.loggers)
    with torch.device("meta"):
        model = create_model(recipe.model.name, len(trained), **recipe.model_kwargs())
        freeze(model, recipe.optim.freeze)
    if device.type == "cpu":
        _check_precision(recipe, model)


def _check_precision(recipe: Recipe, model: nn.Module) -> None:
    """Refuse fp16 on CPUs, and bf16 on CPUs where a kernel is longer than the clip."""
    precision = recipe.train.precision
    if precision == "16-mixed":
        raise UserError("expected train.precision 32-true or bf16-mixed without a GPU, found 16-mixed")
    if precision == "bf16-mixed" and kernel_exceeds_frames(model, recipe.preprocessing().input_shape):
        raise UserError(
            "expected train.precision 32-true, found bf16-mixed: without a GPU this network needs more frames for it "
            "(clip.num_frames), or an MSF network of at least 3 frames in its place"
        )


def _check_batch_size(train: Train) -> None:
    """Refuse batches without two clips per process and micro-batch, which batch statistics need."""
    least = 2 * distributed.world_size() * train.micro_batches
    if train.batch_size < least:
        raise UserError(
            f"expected train.batch_size of {least} or more (2 clips for each of {distributed.world_size()} processes x "
            f"{train.micro_batches} micro-batches), found {train.batch_size}"
        )
