"""Optimisers and the learning rate over time. Knows torch and the recipe, not the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from msfnet.recipe import Optim


def make_optimizer(model: nn.Module, optim: Optim, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay applies to matrices and kernels, not to norms and biases.

    Each group's `initial_lr` is what `set_lr` goes by.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay, "initial_lr": lr},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "initial_lr": lr},
    ]
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    }
    return makers[optim.name](groups, lr=lr)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """The learning rate of every group: `factor` times the one that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def lr_factor(optim: Optim, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by at a moment of training; `epoch` counts from 0 and may lie between.

    A linear warm-up, then: constant; divided by ten every `step_epochs`; or half a cosine from one to zero.
    """
    if epoch < optim.warmup_epochs:
        return max(epoch, 1e-3) / optim.warmup_epochs
    if optim.schedule == "step":
        return float(0.1 ** (int(epoch) // optim.step_epochs))
    if optim.schedule == "cosine":
        progress = (epoch - optim.warmup_epochs) / max(epochs - optim.warmup_epochs, 1e-8)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 1.0
