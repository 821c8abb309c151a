"""Optimizers and the learning rate over time. Knows torch and the recipe, not the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from msfnet.recipe import Optim
from msfnet.types import UserError, nearest


def make_optimizer(model: nn.Module, optim: Optim, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimizer; weight decay applies to matrices and kernels, not to norms and biases.

    Its groups are of one learning rate each, the head's first; what is frozen is in none. Each group's `initial_lr` is
    what `set_lr` goes by.
    """
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    }
    return makers[optim.name](_groups(model, optim, lr), lr=lr)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """The learning rate of every group: `factor` times the one that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def _groups(model: nn.Module, optim: Optim, lr: float) -> list[dict[str, Any]]:
    groups = []
    for depth, parts in parts_by_depth(model).items() if optim.layer_decay < 1 else [(0, [model])]:
        parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        kernels, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        own = lr * optim.layer_decay**depth
        groups.append({"params": kernels, "weight_decay": optim.weight_decay, "lr": own, "initial_lr": own})
        groups.append({"params": others, "weight_decay": 0.0, "lr": own, "initial_lr": own})
    return [group for group in groups if group["params"]]


def parts_by_depth(model: nn.Module) -> dict[int, list[nn.Module]]:
    """The parts of a network by how many lie behind them: 0 is the last layer. Attention goes with its stage."""
    stages: list[list[nn.Module]] = []
    for name, part in model.named_children():
        if not list(part.parameters()):
            continue
        if name.startswith("attention"):
            stages[-1].append(part)
        else:
            stages.append([part])
    return dict(enumerate(reversed(stages)))


def freeze(model: nn.Module, frozen: Sequence[str]) -> None:
    """Keep the parameters of the named parts as they are, and their norms' statistics too, whatever mode is set.

    A part is named as in the network: `layer1`, or `layer1.0` for its first block.

    Raises UserError for a part that the network does not have, and when nothing is left to train.
    """
    parts = {name: module for name, module in model.named_modules() if name}
    for name in frozen:
        if name not in parts:
            raise UserError(f"optim.freeze: the network has no part {name!r}; {_nearest_part(name, parts)}")
        parts[name].requires_grad_(False)
        for module in parts[name].modules():
            if isinstance(module, _BatchNorm):
                module.eval()
                module.register_forward_pre_hook(_stay_in_eval)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"optim.freeze: expected something left to train, found all of it frozen: {', '.join(frozen)}")


def _stay_in_eval(norm: nn.Module, inputs: object) -> None:
    """A trainer sets the mode of the whole network, and does so again after each validation."""
    norm.training = False


def _nearest_part(name: str, parts: Iterable[str]) -> str:
    """What may have been meant: parts that are spelled alike, else those of the first level."""
    depth = name.count(".")
    return nearest(name, [part for part in parts if part.count(".") == depth] or parts)


def lr_factor(optim: Optim, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by at a moment of training; `epoch` counts from 0 and may lie between.

    A linear warm-up, then: constant; divided by ten every `step_epochs`; or half a cosine from one to zero.
    """
    if epoch < optim.warmup_epochs:
        return max(epoch, 1e-3) / optim.warmup_epochs
    if optim.schedule == "step":
        return float(0.1 ** (int(epoch) // optim.decay_epochs))
    if optim.schedule == "cosine":
        progress = (epoch - optim.warmup_epochs) / max(epochs - optim.warmup_epochs, 1e-8)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 1.0
