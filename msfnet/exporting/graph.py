"""The network that is exported: a copy that computes the same in fewer and simpler operations.

Norms are folded into the convolutions before them, the weights that FAM resamples become constants, and where it is
faster residual blocks take their polyphase form. Any network can be exported; other modules stay as they are.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msfnet.exporting.polyphase import BLOCKS, PolyphaseBlocks
from msfnet.layers.fsam import FrequencyPool
from msfnet.layers.norm_folding import fold_norms
from msfnet.layers.winograd import TILE
from msfnet.models.c3d import Halve

Shapes = dict[str, set[tuple[torch.Size, torch.Size]]]  # name of a module -> shapes of its input and output


def exportable(model: nn.Module, input_shape: tuple[int, ...], *, polyphase: bool) -> nn.Module:
    """Return a copy of a network for export, on the CPU and in evaluation mode.

    Args:
        model: Any network N C T H W -> N K.
        input_shape: C T H W of the inputs that the copy takes.
        polyphase: Whether residual blocks take their polyphase form, which only runtimes that fuse sums gain from.

    Returns:
        A network of the same outputs, up to rounding.
    """
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    fold_norms(network)
    shapes = _trace_shapes(network, input_shape)
    for name, module in list(network.named_modules()):
        if len(shapes.get(name, ())) != 1:  # never called, or with inputs of several shapes
            continue
        ((shape, _),) = shapes[name]
        if isinstance(module, FrequencyPool):
            _replace(network, name, ConstantFrequencyPool(module, *shape[-2:]))
        elif isinstance(module, Halve):
            _replace(network, name, nn.MaxPool3d((min(2, shape[2]), 2, 2), padding=module.padding))
        elif type(module) is nn.MaxPool3d:
            _shorten_kernel(module, shape)
    for name, module in list(network.named_children()) if polyphase else ():
        stages = [_polyphase_blocks(module, shape) for _, shape in shapes.get(name, ())]
        if len(stages) == 1 and stages[0]:
            _replace(network, name, stages[0])
    return network.requires_grad_(False)


class ConstantFrequencyPool(nn.Module):
    """`layers.fsam.FrequencyPool` for maps of one size, as a product with a constant: N C T H W -> N C."""

    def __init__(self, pool: FrequencyPool, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(pool.weight(height, width).flatten(1)[:, :, None])  # n HW 1

    def forward(self, x: Tensor) -> Tensor:
        groups = x.mean(2).flatten(2).unflatten(1, (len(self.weight), -1))  # N n C/n HW
        return (groups @ self.weight).flatten(1)


@torch.no_grad()
def _trace_shapes(network: nn.Module, input_shape: tuple[int, ...]) -> Shapes:
    """Run a network once and note the shapes at the modules that `exportable` may replace."""
    shapes: Shapes = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            shapes.setdefault(name, set()).add((inputs[0].shape, output.shape))

    kinds = FrequencyPool | Halve | nn.MaxPool3d | nn.Sequential
    hooks = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    network(torch.zeros(1, *input_shape))
    for hook in hooks:
        hook.remove()
    return shapes


def _shorten_kernel(pool: nn.MaxPool3d, input_shape: torch.Size) -> None:
    """Make a pool's kernel no longer than what it pools, as OpenVINO requires."""
    kernel, padding = (v if isinstance(v, tuple) else (v,) * 3 for v in (pool.kernel_size, pool.padding))
    lengths = [length + 2 * pad for length, pad in zip(input_shape[2:], padding, strict=True)]
    depth, height, width = (min(size, length) for size, length in zip(kernel, lengths, strict=True))
    pool.kernel_size = depth, height, width


def _polyphase_blocks(stage: nn.Module, output_shape: torch.Size) -> PolyphaseBlocks | None:
    """Return the polyphase form of a stage of residual blocks whose frames are whole tiles, None for anything else."""
    if not (type(stage) is nn.Sequential and len(stage) and all(type(block) in BLOCKS for block in stage)):
        return None
    if output_shape[2] % TILE:
        return None
    try:
        return PolyphaseBlocks(stage.children())  # type: ignore[arg-type]
    except ValueError:
        return None


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
