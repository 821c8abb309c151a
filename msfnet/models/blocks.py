"""The blocks of a residual 3D network, made of whichever convolutions they are given.

A convolution maker takes (c_in, c_out, stride) and returns a module N c_in T H W -> N c_out T/s H/s W/s. A block maker
takes (c_in, c_out, stride, drop_rate); the rate is of stochastic depth (`layers.drop_path`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from msfnet.layers.drop_path import DropPath
from msfnet.layers.msl import MSL
from msfnet.layers.recomputation import ConvNormReLU
from msfnet.layers.winograd import Conv3x3x3

ConvMaker = Callable[[int, int, int], nn.Module]
BlockMaker = Callable[[int, int, int, float], nn.Module]
AttentionMaker = Callable[[int], nn.Module]


def scaled(channels: int, width_mult: float) -> int:
    """`channels` times the width multiplier, at least one."""
    return max(1, round(channels * width_mult))


def conv3x3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """The plain convolution of R3D; the norm that follows it stands in for a bias."""
    return nn.Conv3d(c_in, c_out, 3, stride, padding=1, bias=False)


def fast_conv3x3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """The same convolution, with half the multiplications where the stride is 1 (`layers.winograd`)."""
    return Conv3x3x3(c_in, c_out) if stride == 1 else conv3x3x3(c_in, c_out, stride)


def conv3x3x3_biased(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """The convolution of C3D, whose bias MSF-C3D keeps although a norm follows: counted from its 69.20 M."""
    return Conv3x3x3(c_in, c_out, bias=True) if stride == 1 else nn.Conv3d(c_in, c_out, 3, stride, padding=1)


def time_then_space(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """Placement (d) of Table 1: conv3x1x1 (c_in -> c_out), then conv1x3x3 (c_out -> c_out)."""
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
        nn.Conv3d(c_out, c_out, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
    )


def msl(num_splits: int) -> ConvMaker:
    """A maker of MSL; where the block changes shape a strided 1x1x1 convolution does so first."""

    def make(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
        if c_in == c_out and stride == 1:
            return MSL(c_out, num_splits)
        return nn.Sequential(
            nn.Conv3d(c_in, c_out, 1, stride, bias=False),
            nn.BatchNorm3d(c_out),
            nn.ReLU(inplace=True),
            MSL(c_out, num_splits),
        )

    return make


def msl_unless_downsampling(num_splits: int) -> ConvMaker:
    """Placement (c) of Table 1 keeps conv3x3x3 where the block changes shape, and is MSL elsewhere."""

    def make(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
        return conv3x3x3(c_in, c_out, stride) if stride != 1 or c_in != c_out else MSL(c_out, num_splits)

    return make


@dataclass(frozen=True)
class FactoredConv:
    """The (2+1)D convolution of Tran et al. (2018): 1x3x3 to `middle` channels, norm, ReLU, then 3x1x1.

    The middle width gives a factored convolution the parameters of the dense one. torchvision computes it once,
    from the block's first convolution; an older public variant computes it for each.
    """

    middle: int

    @staticmethod
    def middle_channels(c_in: int, c_out: int) -> int:
        return (c_in * c_out * 27) // (c_in * 9 + 3 * c_out)

    def __call__(self, c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(c_in, self.middle, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(self.middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(self.middle, c_out, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False),
        )


def last_norm(channels: int, zero_init_residual: bool) -> nn.BatchNorm3d:
    """The norm at the end of a residual branch; with `zero_init_residual` the branch adds nothing until it has learned to."""
    norm = nn.BatchNorm3d(channels)
    if zero_init_residual:
        nn.init.zeros_(norm.weight)
    return norm


class BasicBlock(nn.Module):
    """The residual block of R3D-18: relu(norm(second(relu(norm(first(x))))) + shortcut(x)).

    With `zero_init_residual` the last norm starts at zero, and the block as relu(shortcut(x)) (Goyal et al., 2017).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        drop_rate: float = 0.0,
        *,
        first: ConvMaker,
        second: ConvMaker,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(first(c_in, c_out, stride), nn.BatchNorm3d(c_out), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second(c_out, c_out, 1), last_norm(c_out, zero_init_residual))
        self.drop_path = DropPath(drop_rate)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv3d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm3d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.drop_path(self.conv2(self.conv1(x))) + shortcut)


class MSFBlock(nn.Module):
    """The multilevel spatiotemporal fusion block (section 3.1, Fig. 2): Output = X + Y + Input.

        X   = relu(norm(first(x)))      path A; X itself is path C
        Y   = norm(second(X))           the MSL, in the placement that the paper chose
        B   = x, or norm(conv1x1x1(maxpool(x))) where the shape changes
        out = relu(X + Y + B)

    Pooling keeps more texture than a strided 1x1x1 convolution would. Its rounding up gives the size of a padded
    3x3x3 convolution of the same stride, odd sizes and single frames included. `project` puts the 1x1x1
    convolution in path B even where the shape does not change.

    Stochastic depth drops X and Y together: Y is computed from X, and only without both is the block its shortcut, as
    the shorter networks are that Huang et al. train. `zero_init_residual` zeroes the norm of Y, and the block starts as
    relu(X + B): X cannot be zeroed as well, for no gradient passes a relu whose input is zero everywhere.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        drop_rate: float = 0.0,
        *,
        first: ConvMaker,
        second: ConvMaker,
        project: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormReLU(first(c_in, c_out, stride), c_out)
        self.conv2 = nn.Sequential(second(c_out, c_out, 1), last_norm(c_out, zero_init_residual))
        self.drop_path = DropPath(drop_rate)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if project or stride != 1 or c_in != c_out:
            pool = nn.Identity() if stride == 1 else nn.MaxPool3d(stride, ceil_mode=True)
            self.downsample = nn.Sequential(pool, nn.Conv3d(c_in, c_out, 1, bias=False), nn.BatchNorm3d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        fused = self.conv1(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.drop_path(self.conv2(fused).add_(fused))
        return self.relu(y.add_(shortcut))
