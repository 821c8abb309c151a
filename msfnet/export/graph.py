"""The network that is exported: a copy that computes the same in fewer and simpler operations.

Norms are folded into the convolutions before them, the weights that FAM resamples become constants, and where it pays
residual blocks take their frames interleaved (`winograd`). Knows no file and no runtime.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msfnet.export.winograd import PHASES, PhasedBlocks
from msfnet.layers.fam import FrequencyPool
from msfnet.models.blocks import BasicBlock, MSFBlock
from msfnet.models.c3d import Halve


class FixedFrequencyPool(nn.Module):
    """`layers.fam.FrequencyPool` for maps of one size, as a product with a constant: N C T H W -> N C."""

    def __init__(self, pool: FrequencyPool, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(pool.weight(height, width).flatten(1)[:, :, None])  # n HW 1

    def forward(self, x: Tensor) -> Tensor:
        groups = x.mean(2).flatten(2).unflatten(1, (len(self.weight), -1))  # N n C/n HW
        return (groups @ self.weight).flatten(1)


def exportable(model: nn.Module, input_shape: tuple[int, ...], *, interleaved: bool) -> nn.Module:
    """A copy of a network of ours for inputs N C T H W of one C T H W, on the CPU, in evaluation mode.

    `interleaved` asks for the faster convolutions over time, which only a runtime that fuses sums gains from.
    """
    shapes = _shapes(model, input_shape)
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    _fold_norms(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, FrequencyPool):
            _replace(network, name, FixedFrequencyPool(module, *shapes[name][0][-2:]))
        elif isinstance(module, nn.MaxPool3d | Halve):
            _replace(network, name, _fitting(module, shapes[name][0]))
    for name, module in list(network.named_children()) if interleaved else ():
        if name in shapes and _pays_interleaved(module, shapes[name][1]):
            _replace(network, name, PhasedBlocks(module.children()))  # type: ignore[arg-type]
    return network.requires_grad_(False)


def _shapes(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Of the modules that `exportable` may replace: the shapes of what goes in and out. Nothing is computed."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        shapes[name] = (inputs[0].shape, output.shape)

    traced = copy.deepcopy(model).to("meta").eval()
    for name, module in traced.named_modules():
        if isinstance(module, FrequencyPool | nn.MaxPool3d | Halve | nn.Sequential):
            module.register_forward_hook(partial(note, name))
    with torch.no_grad():
        traced(torch.zeros(1, *input_shape, device="meta"))
    return shapes


def _fold_norms(module: nn.Module) -> None:
    """Multiply each convolution by the norm behind it, here and below, and put nothing in the norm's place."""
    for child in module.children():
        _fold_norms(child)
    if not isinstance(module, nn.Sequential):
        return
    for place in range(1, len(module)):
        before, norm = module[place - 1], module[place]
        inner = before if isinstance(before, nn.Sequential) else module
        last = len(before) - 1 if isinstance(before, nn.Sequential) else place - 1
        conv = inner[last]
        if isinstance(norm, nn.BatchNorm3d) and isinstance(conv, nn.Conv3d):
            inner[last], module[place] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _fitting(pool: nn.MaxPool3d | Halve, input_shape: torch.Size) -> nn.MaxPool3d:
    """The pool with a kernel that is constant and no longer than what it pools, as OpenVINO wants it."""
    if isinstance(pool, Halve):
        return nn.MaxPool3d((min(2, input_shape[2]), 2, 2), padding=pool.padding)
    kernel = pool.kernel_size if isinstance(pool.kernel_size, tuple) else (pool.kernel_size,) * 3
    fitting = tuple(min(size, length) for size, length in zip(kernel, input_shape[2:], strict=True))
    return nn.MaxPool3d(fitting, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)


def _pays_interleaved(module: nn.Module, output_shape: torch.Size) -> bool:
    """Whether it is a stage of residual blocks whose convolutions over time are all 3x3x3, with frames for tiles."""
    if not isinstance(module, nn.Sequential) or not all(isinstance(b, BasicBlock | MSFBlock) for b in module):
        return False
    if len(output_shape) != 5 or output_shape[2] % PHASES:
        return False
    try:
        PhasedBlocks(copy.deepcopy(module).children())  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
