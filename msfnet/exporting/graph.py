"""Residual blocks on interleaved frames, with 3x3x3 convolutions that need half the multiplications over time.

A clip of T frames is four phases: phase p holds frames p, p + 4, p + 8, ..., so that the same place in all four makes a
tile of four frames in a row. A convolution of three taps over a tile is Winograd's F(4, 3) (Lavin and Gray, 2016, "Fast
algorithms for convolutional neural networks"): six products of weighted frames in place of twelve.

    y = A^T [(G g) * (B^T d)]        d: the tile and a frame on either side, g: the taps, y: four frames

Of the points that define the transforms, 0, ±1/sqrt(2), ±sqrt(2) and infinity round least: in bfloat16 about twice as
much as a plain convolution, where the usual 0, ±1, ±2 and infinity round four times as much.


The network that is exported: a copy that computes the same in fewer and simpler operations.

Norms are folded into the convolutions before them, the weights that FAM resamples become constants, and where it pays
residual blocks take their frames interleaved (`winograd`). Knows no file and no runtime.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msfnet.layers.fsam import FrequencyPool
from msfnet.layers.msl import MSL
from msfnet.models.blocks import BasicBlock, MSFBlock
from msfnet.models.c3d import Halve

PHASES = 4
NEAR, FAR = math.sqrt(0.5), math.sqrt(2)  # the points but for 0 and infinity, with either sign

Block = BasicBlock | MSFBlock


def weight_transform() -> Tensor:
    """G of F(4, 3): 6 3, in double precision. Row i is (1, p, p^2) / prod(p - q over the other finite points q)."""
    points = (0.0, NEAR, -NEAR, FAR, -FAR)
    rows = []
    for p in points:
        scale = math.prod(p - q for q in points if q != p)
        rows.append([1 / scale, p / scale, p * p / scale])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


class WinogradConv(nn.Module):
    """A 3x3x3 convolution of stride 1 on phases: 4 x (N C T/4 H W) -> 4 x (N K T/4 H W)."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        weight = torch.einsum("it,kcthw->ikchw", weight_transform(), conv.weight.detach().double())
        self.weights = nn.ParameterList(nn.Parameter(w[:, :, None].to(conv.weight.dtype)) for w in weight)  # K C 1 3 3
        bias = conv.bias.detach() if conv.bias is not None else torch.zeros(conv.out_channels)
        self.bias = nn.Parameter(bias[:, None, None, None].clone())

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        products = [
            F.conv3d(frames, weight, padding=(0, 1, 1))
            for frames, weight in zip(weighted_frames(*phases), self.weights, strict=True)
        ]
        first, near_plus, near_minus, far_plus, far_minus, last = products
        even_near, odd_near = near_plus + near_minus, NEAR * (near_plus - near_minus)
        even_far, odd_far = far_plus + far_minus, FAR * (far_plus - far_minus)
        return [
            first + even_near + even_far + self.bias,
            odd_near + odd_far + self.bias,
            0.5 * even_near + 2 * even_far + self.bias,
            0.5 * odd_near + 2 * odd_far + last + self.bias,
        ]


def weighted_frames(p0: Tensor, p1: Tensor, p2: Tensor, p3: Tensor) -> list[Tensor]:
    """B^T d: the four frames of each tile, the one before it and the one after it, in six sums. Outside there are none.

    d is (before, p0, p1, p2, p3, after).
    """
    first, last = p3 - 2.5 * p1, p0 - 2.5 * p2
    if p0.shape[2] > 1:
        nothing = torch.zeros_like(p0[:, :, :1])
        first = first + torch.cat((nothing, p3[:, :, :-1]), 2)
        last = last + torch.cat((p0[:, :, 1:], nothing), 2)
    even_near, odd_near = p3 - 2 * p1, NEAR * (p2 - 2 * p0)
    even_far, odd_far = p3 - 0.5 * p1, FAR * (p2 - 0.5 * p0)
    return [first, even_near + odd_near, even_near - odd_near, even_far + odd_far, even_far - odd_far, last]


class EachPhase(nn.Module):
    """A module that looks at one frame at a time, on each of the phases."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        return [self.module(frames) for frames in phases]


class PhasedMSL(nn.Module):
    """`layers.msl.MSL` on phases: its branches are convolutions over time, its splits and joins are by channel."""

    def __init__(self, msl: MSL) -> None:
        super().__init__()
        self.sizes = msl.sizes
        self.branches = nn.ModuleList(phased(branch) for branch in msl.branches)

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        parts = [frames.split(self.sizes, 1) for frames in phases]  # of each phase, S groups
        outputs = [[groups[0]] for groups in parts]
        carry: list[Tensor] | None = None
        for number, branch in enumerate(self.branches, 1):
            level = [groups[number] for groups in parts]
            if carry is not None:
                level = [torch.cat(pair, 1) for pair in zip(level, carry, strict=True)]
            level = branch(level)
            if number < len(self.branches):
                carried = level[0].shape[1] // 2
                halves = [frames.split([frames.shape[1] - carried, carried], 1) for frames in level]
                level, carry = [kept for kept, _ in halves], [rest for _, rest in halves]
            for output, frames in zip(outputs, level, strict=True):
                output.append(frames)
        return [torch.cat(output, 1) for output in outputs]


def phased(module: nn.Module) -> nn.Module:
    """The same on phases. Raises ValueError for what is worth nothing there or cannot be: see `can_be_phased`."""
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*(phased(child) for child in module))
    if isinstance(module, MSL):
        return PhasedMSL(module)
    if isinstance(module, nn.Conv3d):
        if (module.kernel_size, module.stride, module.padding) != ((3, 3, 3), (1, 1, 1), (1, 1, 1)):
            raise ValueError(f"no convolution for phases: {module}")
        return WinogradConv(module)
    return EachPhase(module)


class PhasedBlocks(nn.Module):
    """Residual blocks one after another: N C T H W -> N K T' H' W', where T' divides by four.

    A block that changes the shape makes X and the shortcut as it did, and its frames are dealt out behind them.
    Raises ValueError where a convolution is not 3x3x3.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PhasedBlock(block) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor | list[Tensor] = x
        for block in self.blocks:
            value = block(value)
        return torch.stack(list(value), 3).flatten(2, 3)  # 4 x (N K T/4 H W) -> N K T H W


class PhasedBlock(nn.Module):
    """A residual block on phases, which takes a whole clip as well: relu(Y + shortcut), MSF blocks add X."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.downsample, self.adds_first = block.downsample, isinstance(block, MSFBlock)
        self.conv1 = phased(block.conv1) if block.downsample is None else block.conv1
        self.conv2 = phased(block.conv2)

    def forward(self, value: Tensor | list[Tensor]) -> list[Tensor]:
        if self.downsample is not None:
            x = value if isinstance(value, Tensor) else torch.stack(value, 3).flatten(2, 3)
            first, shortcut = deal(self.conv1(x)), deal(self.downsample(x))
        else:
            shortcut = deal(value) if isinstance(value, Tensor) else value
            first = self.conv1(shortcut)
        second = self.conv2(first)
        if self.adds_first:
            second = [x + y for x, y in zip(first, second, strict=True)]
        return [F.relu(y + rest) for y, rest in zip(second, shortcut, strict=True)]


def deal(x: Tensor) -> list[Tensor]:
    """N C T H W -> 4 phases of N C T/4 H W."""
    return [x[:, :, phase::PHASES] for phase in range(PHASES)]


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
