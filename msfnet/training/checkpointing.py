"""Activation checkpointing (Chen et al., 2016, "Training deep nets with sublinear memory cost")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(model: nn.Module) -> nn.Module:
    """Save only the input of each block for backward, and recompute the block from it when gradients are computed.

    Outputs do not change. Batch norms update their running statistics once, and dropout draws the same mask again.

    Args:
        model: The network, whose blocks are changed in place.

    Returns:
        The same network.
    """
    for block in _blocks(model):
        block.forward = partial(_checkpointed, block, block.forward)
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules with children of their own in each stage, which is a sequence."""
    for stage in model.children():
        if isinstance(stage, nn.Sequential):
            yield from (module for module in stage.children() if any(True for _ in module.children()))


def _checkpointed(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    if not block.training:
        return forward(x)
    return checkpoint(forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(block)))


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of the batch, as in training, without updating their running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm3d)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone() if norm.num_batches_tracked is not None else None
    try:
        yield
    finally:
        for norm, momentum, n_batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, n_batches
