"""The residual blocks of R3D, R(2+1)D and MSF-R3D, made of whichever convolutions they are given.

A convolution maker takes (c_in, c_out, stride) and returns a module N c_in T H W -> N c_out T/s H/s W/s without a norm
at its end. A block maker takes (c_in, c_out, stride, drop_rate), the last for stochastic depth. An attention maker
takes the channels of a feature map and returns a module that preserves its shape.
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
    """Return `channels` times the width multiplier, rounded, at least one."""
    return max(1, round(channels * width_mult))


# Convolution makers


def conv3x3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """Return the convolution of R3D. It has no bias because a batch norm follows it."""
    return nn.Conv3d(c_in, c_out, 3, stride, padding=1, bias=False)


def fast_conv3x3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """Return `conv3x3x3` with half the multiplications on CPUs if the stride is 1 (`layers.winograd`)."""
    return Conv3x3x3(c_in, c_out) if stride == 1 else conv3x3x3(c_in, c_out, stride)


def conv3x3x3_biased(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    """Return the convolution of C3D. MSF-C3D keeps the bias before a batch norm, as the paper's 69.20 M imply."""
    return Conv3x3x3(c_in, c_out, bias=True) if stride == 1 else nn.Conv3d(c_in, c_out, 3, stride, padding=1)


def time_then_space(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """Return the convolution of Table 1 (d): conv3x1x1 (c_in -> c_out), norm, ReLU, conv1x3x3 (c_out -> c_out)."""
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
        nn.Conv3d(c_out, c_out, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
    )


def msl(num_splits: int) -> ConvMaker:
    """Return a maker of MSL; where the shape changes, a strided 1x1x1 convolution, norm and ReLU precede it."""

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
    """Return the first convolution of Table 1 (c): conv3x3x3 where the shape changes, MSL elsewhere."""

    def make(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
        return conv3x3x3(c_in, c_out, stride) if stride != 1 or c_in != c_out else MSL(c_out, num_splits)

    return make


@dataclass(frozen=True)
class FactoredConv:
    """A maker of the (2+1)D convolution of Tran et al. (2018): 1x3x3 to `middle` channels, norm, ReLU, then 3x1x1."""

    middle: int

    @staticmethod
    def middle_channels(c_in: int, c_out: int) -> int:
        """Return the width that gives the factorized convolution as many weights as a 3x3x3 one (section 3.5)."""
        return (c_in * c_out * 27) // (c_in * 9 + 3 * c_out)

    def __call__(self, c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(c_in, self.middle, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(self.middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(self.middle, c_out, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False),
        )


# Blocks


def last_norm(channels: int, zero_init_residual: bool) -> nn.BatchNorm3d:
    """Return the norm that ends a residual branch; with `zero_init_residual` the branch is initially zero."""
    norm = nn.BatchNorm3d(channels)
    if zero_init_residual:
        nn.init.zeros_(norm.weight)
    return norm


class BasicBlock(nn.Module):
    """The residual block of R3D-18: relu(norm(second(relu(norm(first(x))))) + shortcut(x)).

    It maps N c_in T H W to N c_out T/s H/s W/s. The shortcut is a strided 1x1x1 convolution and a norm where the shape
    changes.

    Args:
        c_in: Input channels.
        c_out: Output channels.
        stride: Stride s in time, height and width.
        drop_rate: Stochastic depth rate of the residual branch.
        first: Maker of the convolution c_in -> c_out with the stride.
        second: Maker of the convolution c_out -> c_out.
        zero_init_residual: Initialize the last norm's weight to zero, so that the block starts as relu(shortcut(x))
            (Goyal et al., 2017).

    Raises:
        ValueError: As `DropPath`.
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
        Y   = norm(second(X))           second is MSL in the placement that the paper chose
        B   = x, or norm(conv1x1x1(maxpool(x))) where the shape changes
        out = relu(X + Y + B)

    It maps N c_in T H W to N c_out T/s H/s W/s. Pooling rounds up (ceil mode), which gives the size of a padded 3x3x3
    convolution of the same stride for odd sizes and single frames too.

    Stochastic depth drops X and Y together: Y is computed from X, and only without both is the block its shortcut, as
    in Huang et al. (2016).

    Args:
        c_in: Input channels.
        c_out: Output channels.
        stride: Stride s in time, height and width.
        drop_rate: Stochastic depth rate of X + Y.
        first: Maker of the convolution c_in -> c_out with the stride.
        second: Maker of the convolution c_out -> c_out.
        project: Whether path B has a 1x1x1 convolution even where the shape does not change.
        zero_init_residual: Initialize the weight of Y's norm to zero, so that the block starts as relu(X + B). X keeps
            its norm: a ReLU whose input is zero everywhere passes no gradient.

    Raises:
        ValueError: As `DropPath`, and what the makers raise.
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


# Both families of networks


def new_classifier(old: nn.Linear, num_classes: int) -> nn.Linear:
    """Return a newly initialized last layer for the features of `old`, on its device and of its element type.

    Raises:
        ValueError: Unless num_classes is above 0.
    """
    check_positive(num_classes=num_classes)
    layer = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def check_positive(**values: float) -> None:
    """Raise ValueError for the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"expected {name} above 0, found {value}")
