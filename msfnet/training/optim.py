"""Optimizers, learning rate schedules, frozen modules and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from msfnet.recipe import Optim
from msfnet.types import UserError, nearest

# Optimizer and learning rate


def make_optimizer(model: nn.Module, optim: Optim, lr: float) -> torch.optim.Optimizer:
    """Create the optimizer of a recipe.

    Weight decay applies to convolution and linear weights, not to norms and biases. With layer-wise decay, each depth
    of the network has parameter groups of its own, those of the classifier first. Frozen parameters are in no group.

    Args:
        model: The network.
        optim: The table of the recipe.
        lr: The peak learning rate, for the actual batch size.
    """
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    }
    return makers[optim.name](_groups(model, optim, lr), lr=lr)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every parameter group to `factor` times its peak, which is its `initial_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def lr_factor(optim: Optim, epoch: float, epochs: int) -> float:
    """Return the factor on the peak learning rate at a moment of training.

    After a linear warmup, the factor is constant, is divided by ten every `decay_epochs`, or is half a cosine from one
    to zero.

    Args:
        optim: The table of the recipe.
        epoch: Epochs that have passed, with fractions.
        epochs: Epochs of the whole run.
    """
    if epoch < optim.warmup_epochs:
        return max(epoch, 1e-3) / optim.warmup_epochs
    if optim.schedule == "step":
        return float(0.1 ** (int(epoch) // optim.decay_epochs))
    if optim.schedule == "cosine":
        progress = (epoch - optim.warmup_epochs) / max(epochs - optim.warmup_epochs, 1e-8)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 1.0


def modules_by_depth(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Return the modules of a network by their distance from the output: 0 is the classifier.

    Attention belongs to the stage that it follows.
    """
    stages: list[list[nn.Module]] = []
    for name, module in model.named_children():
        if not list(module.parameters()):
            continue
        if name.startswith("attention"):
            stages[-1].append(module)
        else:
            stages.append([module])
    return dict(enumerate(reversed(stages)))


def _groups(model: nn.Module, optim: Optim, lr: float) -> list[dict[str, Any]]:
    groups = []
    for depth, modules in modules_by_depth(model).items() if optim.layer_decay < 1 else [(0, [model])]:
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        weights, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        own = lr * optim.layer_decay**depth
        groups.append({"params": weights, "weight_decay": optim.weight_decay, "lr": own, "initial_lr": own})
        groups.append({"params": others, "weight_decay": 0.0, "lr": own, "initial_lr": own})
    return [group for group in groups if group["params"]]


# Frozen modules


def freeze(model: nn.Module, frozen: Sequence[str]) -> None:
    """Keep the parameters and the batch norm statistics of modules as they are, in every mode of the network.

    Args:
        model: The network.
        frozen: Names of its modules, such as `layer1`, or `layer1.0` for the first block of it.

    Raises:
        UserError: The network has no such module, or nothing is left to train.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    for name in frozen:
        if name not in modules:
            raise UserError(
                f"expected modules of the network in optim.freeze, found {name!r}; {_nearest_module(name, modules)}"
            )
        modules[name].requires_grad_(False)
        for module in modules[name].modules():
            if isinstance(module, _BatchNorm):
                module.eval()
                module.register_forward_pre_hook(_stay_in_eval)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"optim.freeze: expected something left to train, found all of it frozen: {', '.join(frozen)}")


def _stay_in_eval(norm: nn.Module, inputs: object) -> None:
    """Undo training mode, which is set for the whole network, again after each validation."""
    norm.training = False


def _nearest_module(name: str, modules: Iterable[str]) -> str:
    depth = name.count(".")
    return nearest(name, [module for module in modules if module.count(".") == depth] or modules)


# Moving average


class WeightAverage:
    """The exponential moving average of a network's state: weights, and batch statistics.

    After each step: average = d average + (1 - d) weights, where d is `decay`, or (1 + steps) / (10 + steps) while that
    is lower, so that the first weights are soon forgotten. Integers (counts of batches) are copied.

    Args:
        model: The network, whose present state is the first average.
        decay: The largest d.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights that a step of the optimizer has led to."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in model.state_dict().items():
            average = self._on_device_of(key, value)
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Load the average into the network within the block, and restore its own weights, bit for bit, after it."""
        own = {key: value.detach().clone() for key, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its number of steps, for a checkpoint."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = state["steps"]
        self.average = {key: value.clone() for key, value in state["average"].items()}

    def _on_device_of(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Return a part of the average, moved to where the weights are after a checkpoint or a device change."""
        if self.average[key].device != value.device:
            self.average[key] = self.average[key].to(value.device)
        return self.average[key]
