"""Every named network of the paper: a backbone x the convolutions in its blocks x the attention after its stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from msfnet.layers.cbam import CBAM
from msfnet.layers.fsam import FSAM
from msfnet.layers.nst import NST
from msfnet.layers.se import SE
from msfnet.models.blocks import (
    AttentionMaker,
    BasicBlock,
    ConvMaker,
    FactoredConv,
    MSFBlock,
    conv3x3x3,
    conv3x3x3_biased,
    msl,
    msl_unless_downsampling,
    time_then_space,
)
from msfnet.models.c3d import C3D, conv_pair
from msfnet.models.resnet3d import ResNet3D, stem3x7x7, stem_factored
from msfnet.types import nearest

# Table 3: what follows the 256- and the 512-channel stage. Each maker takes (channels, reduction).
ATTENTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, reduction: nn.Identity(),
    "fsam": FSAM,
    "se": SE,
    "cbam": CBAM,
    "nst": lambda channels, reduction: NST(),
}

# Table 1: the first and the second convolution of an MSF block, for a number of groups.
PLACEMENTS: dict[str, Callable[[int], tuple[ConvMaker, ConvMaker]]] = {
    "a": lambda groups: (msl(groups), conv3x3x3),
    "b": lambda groups: (conv3x3x3, msl(groups)),
    "c": lambda groups: (msl_unless_downsampling(groups), msl(groups)),
    "d": lambda groups: (time_then_space, msl(groups)),
}


def _attention(name: str, reduction: int) -> AttentionMaker:
    if name not in ATTENTIONS:
        raise ValueError(f"unknown attention {name!r}; {nearest(name, ATTENTIONS)}")
    return lambda channels: ATTENTIONS[name](channels, reduction)


def r3d18(
    num_classes: int = 101,
    *,
    attention: str = "none",
    reduction: int = 16,
    width: float = 1.0,
    in_channels: int = 3,
    frames: int = 8,
    size: int = 112,
) -> ResNet3D:
    """R3D-18, the baseline: two 3x3x3 convolutions a block."""
    return ResNet3D(
        num_classes,
        stem=stem3x7x7,
        block=partial(BasicBlock, first=conv3x3x3, second=conv3x3x3),
        attention=_attention(attention, reduction),
        width=width,
        input_shape=(in_channels, frames, size, size),
    )


def msf_r3d18(
    num_classes: int = 101,
    *,
    placement: str = "b",
    groups: int = 4,
    attention: str = "none",
    reduction: int = 16,
    width: float = 1.0,
    in_channels: int = 3,
    frames: int = 8,
    size: int = 112,
) -> ResNet3D:
    """MSF-R3D: R3D-18 with every block an MSF block; `placement` as in Table 1, `groups` the S of Table 2."""
    if placement not in PLACEMENTS:
        raise ValueError(f"unknown placement {placement!r}; {nearest(placement, PLACEMENTS)}")
    first, second = PLACEMENTS[placement](groups)
    return ResNet3D(
        num_classes,
        stem=stem3x7x7,
        block=partial(MSFBlock, first=first, second=second),
        attention=_attention(attention, reduction),
        width=width,
        input_shape=(in_channels, frames, size, size),
    )


def r2plus1d18(
    num_classes: int = 101,
    *,
    middle_per_conv: bool = False,
    attention: str = "none",
    reduction: int = 16,
    width: float = 1.0,
    in_channels: int = 3,
    frames: int = 8,
    size: int = 112,
) -> ResNet3D:
    """R(2+1)D-18 as in torchvision; `middle_per_conv` is the variant of 33.23 M parameters in Table 5."""

    def block(c_in: int, c_out: int, stride: int) -> BasicBlock:
        first = FactoredConv(FactoredConv.middle_channels(c_in, c_out))
        second = FactoredConv(FactoredConv.middle_channels(c_out, c_out)) if middle_per_conv else first
        return BasicBlock(c_in, c_out, stride, first=first, second=second)

    return ResNet3D(
        num_classes,
        stem=stem_factored,
        block=block,
        attention=_attention(attention, reduction),
        width=width,
        input_shape=(in_channels, frames, size, size),
    )


def c3d(
    num_classes: int = 101,
    *,
    attention: str = "none",
    reduction: int = 16,
    width: float = 1.0,
    in_channels: int = 3,
    frames: int = 16,
    size: int = 112,
) -> C3D:
    """C3D, the classic network of eight convolutions."""
    return C3D(
        num_classes,
        pair=conv_pair,
        attention=_attention(attention, reduction),
        width=width,
        input_shape=(in_channels, frames, size, size),
    )


def msf_c3d(
    num_classes: int = 101,
    *,
    groups: int = 4,
    attention: str = "none",
    reduction: int = 16,
    width: float = 1.0,
    in_channels: int = 3,
    frames: int = 16,
    size: int = 112,
) -> C3D:
    """MSF-C3D (section 4.4): an MSF block of stride 1 in place of each pair of convolutions."""

    def pair(c_in: int, c_out: int) -> MSFBlock:
        return MSFBlock(c_in, c_out, 1, first=conv3x3x3_biased, second=msl(groups), project=True)

    return C3D(
        num_classes,
        pair=pair,
        attention=_attention(attention, reduction),
        width=width,
        input_shape=(in_channels, frames, size, size),
    )
