"""Activation checkpointing: blocks keep their input only, and are computed a second time when gradients are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msfnet.training.batchnorm import without_running_statistics


def checkpoint_blocks(model: nn.Module) -> nn.Module:
    """Have the blocks of every stage of a network computed twice (Chen et al., 2016). Its outputs do not change.

    Running statistics of norms count a batch once, and dropout repeats itself.
    """
    for block in _blocks(model):
        block.forward = partial(_twice, block, block.forward)
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The parts of the stages: what has parts of its own and lies in a sequence of the network itself."""
    for stage in model.children():
        if isinstance(stage, nn.Sequential):
            yield from (part for part in stage.children() if any(True for _ in part.children()))


def _twice(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    if not block.training:
        return forward(x)
    return checkpoint(
        forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), without_running_statistics(block))
    )
