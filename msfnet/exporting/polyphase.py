"""Residual blocks in polyphase form, whose 3x3x3 convolutions need half the multiplications over time.

The frames of a clip are divided into four phases: phase p holds frames p, p + 4, p + 8, ..., so that the frames at one
place of all phases are a tile of four frames in a row. A convolution of three taps over a tile is Winograd's F(4, 3)
(`layers.winograd`): the input transform, six products instead of twelve, and the output transform are sums of whole
phases, which runtimes that fuse elementwise operations compute in one pass.

    y = A^T [(G g) * (B^T d)]        d: the tile and a frame on either side, g: the taps, y: four frames

The interpolation points 0, ±1/sqrt(2), ±sqrt(2) and infinity round least: in bfloat16 about twice as much as the direct
convolution, where the usual 0, ±1, ±2 and infinity round four times as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.layers.msl import MSL
from msfnet.layers.norm_folding import is_plain_conv
from msfnet.layers.winograd import TILE, transforms
from msfnet.models.blocks import BasicBlock, MSFBlock

Block = BasicBlock | MSFBlock
BLOCKS = (BasicBlock, MSFBlock)
PER_FRAME = (nn.BatchNorm3d, nn.ReLU, nn.Identity)  # in evaluation mode each frame is computed on its own

TRANSFORMS = transforms(math.sqrt(0.5), math.sqrt(2))

# Rows of B^T and columns of A^T of two opposite points are sums and differences of the same two terms. These matrices
# have the terms once, and `_butterfly` adds and subtracts them: B^T d = butterfly(INPUT d), A^T m = OUTPUT butterfly(m)
_UNPAIR = torch.block_diag(
    *(torch.tensor(block, dtype=torch.float64) for block in ([[1]], *[[[0.5, 0.5], [0.5, -0.5]]] * 2, [[1]]))
)
INPUT = (_UNPAIR @ TRANSFORMS.input).round(decimals=14).tolist()  # rounded: zeros and ones cost no operation
OUTPUT = (TRANSFORMS.output @ _UNPAIR).round(decimals=14).tolist()


def to_phases(x: Tensor) -> list[Tensor]:
    """Divide frames into phases: N C T H W -> four N C T/4 H W. T must be divisible by four."""
    return [x[:, :, phase::TILE] for phase in range(TILE)]


def from_phases(phases: Sequence[Tensor]) -> Tensor:
    """Return the inverse of `to_phases`."""
    return torch.stack(list(phases), 3).flatten(2, 3)  # 4 x (N C T/4 H W) -> N C T/4 4 H W -> N C T H W


class PolyphaseConv(nn.Module):
    """A 3x3x3 convolution of stride 1 and padding 1 on phases: 4 x (N C T/4 H W) -> 4 x (N K T/4 H W)."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        weight = torch.einsum("it,kcthw->ikchw", TRANSFORMS.weight, conv.weight.detach().double())
        self.weights = nn.ParameterList(nn.Parameter(w[:, :, None].to(conv.weight.dtype)) for w in weight)  # K C 1 3 3
        bias = conv.bias.detach() if conv.bias is not None else torch.zeros(conv.out_channels)
        self.bias = nn.Parameter(bias[:, None, None, None].clone())

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        products = [
            F.conv3d(frames, weight, padding=(0, 1, 1))
            for frames, weight in zip(transform_input(phases), self.weights, strict=True)
        ]
        return [y + self.bias for y in transform_output(products)]


def transform_input(phases: Sequence[Tensor]) -> list[Tensor]:
    """Compute B^T d of all tiles: four phases -> six sums of phases. Frames outside the clip are zero."""
    before, after = None, None  # frames of the neighbors of each tile
    if phases[0].shape[2] > 1:
        zero = torch.zeros_like(phases[0][:, :, :1])
        before = torch.cat((zero, phases[-1][:, :, :-1]), 2)
        after = torch.cat((phases[0][:, :, 1:], zero), 2)
    tile = (before, *phases, after)
    return _butterfly([_weighted_sum(row, tile) for row in INPUT])


def transform_output(products: list[Tensor]) -> list[Tensor]:
    """Apply A^T to the six products, which gives the four phases of the output."""
    terms = _butterfly(products)
    return [_weighted_sum(row, terms) for row in OUTPUT]


def _butterfly(x: list[Tensor]) -> list[Tensor]:
    return [x[0], x[1] + x[2], x[1] - x[2], x[3] + x[4], x[3] - x[4], x[5]]


def _weighted_sum(weights: Sequence[float], terms: Sequence[Tensor | None]) -> Tensor:
    """Sum weighted terms, without operations for weights of 0 and 1 or for terms of None, which are zero."""
    pairs = [(weight, term) for weight, term in zip(weights, terms, strict=True) if weight and term is not None]
    first, *others = [term if weight == 1 else weight * term for weight, term in pairs]
    for term in others:
        first = first + term
    return first


class PerPhase(nn.Module):
    """A module that computes each frame on its own, applied to every phase."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        return [self.module(frames) for frames in phases]


class PolyphaseMSL(nn.Module):
    """`layers.msl.MSL` on phases: its branches are convolutions over time, its splits and joins are by channel."""

    def __init__(self, msl: MSL) -> None:
        super().__init__()
        self.sizes = msl.sizes
        self.branches = nn.ModuleList(polyphase(branch) for branch in msl.branches)

    def forward(self, phases: list[Tensor]) -> list[Tensor]:
        splits = [frames.split(self.sizes, 1) for frames in phases]  # the S splits of each phase
        outputs = [[split[0]] for split in splits]
        carry: list[Tensor] | None = None
        for number, branch in enumerate(self.branches, 1):
            level = [split[number] for split in splits]
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


def polyphase(module: nn.Module) -> nn.Module:
    """Return the same module on phases: list of four N C T/4 H W -> list of four N K T/4 H W.

    Raises:
        ValueError: It contains something other than plain 3x3x3 convolutions, MSL and modules that look at one frame.
    """
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*(polyphase(child) for child in module))
    if type(module) is MSL:
        return PolyphaseMSL(module)
    if isinstance(module, nn.Conv3d) and is_plain_conv(module) and _is_3x3x3(module):
        return PolyphaseConv(module)
    if type(module) in PER_FRAME:
        return PerPhase(module)
    raise ValueError(f"no polyphase form of {module}")


def _is_3x3x3(conv: nn.Conv3d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return shape == ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "zeros")


class PolyphaseBlocks(nn.Module):
    """Residual blocks one after another: N C T H W -> N K T' H' W', where T' divides by four.

    Args:
        blocks: Exactly of the types in `BLOCKS`, with norms folded. A block that changes the shape computes its first
            convolution and its shortcut as before, and its frames are divided into phases after them.

    Raises:
        ValueError: A block has something that has no polyphase form.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PolyphaseBlock(block) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor | list[Tensor] = x
        for block in self.blocks:
            value = block(value)
        return from_phases(value)  # type: ignore[arg-type]  # a block returns phases


class PolyphaseBlock(nn.Module):
    """A residual block on phases, which also takes a whole clip: relu(Y + shortcut), where MSF blocks add X to Y."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.downsample, self.adds_first = block.downsample, isinstance(block, MSFBlock)
        self.conv1 = polyphase(block.conv1) if block.downsample is None else block.conv1
        self.conv2 = polyphase(block.conv2)

    def forward(self, value: Tensor | list[Tensor]) -> list[Tensor]:
        if self.downsample is not None:
            x = value if isinstance(value, Tensor) else from_phases(value)
            first, shortcut = to_phases(self.conv1(x)), to_phases(self.downsample(x))
        else:
            shortcut = to_phases(value) if isinstance(value, Tensor) else value
            first = self.conv1(shortcut)
        second = self.conv2(first)
        if self.adds_first:
            second = [x + y for x, y in zip(first, second, strict=True)]
        return [F.relu(y + rest) for y, rest in zip(second, shortcut, strict=True)]
