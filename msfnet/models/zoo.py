"""Every named network of the paper: a backbone x the convolutions in its blocks x the attention after its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from msfnet.layers.cbam import CBAM
from msfnet.layers.fsam import FSAM
from msfnet.layers.nst import NST
from msfnet.layers.se import SE
from msfnet.models.blocks import (
    BasicBlock,
    BlockMaker,
    ConvMaker,
    FactoredConv,
    MSFBlock,
    conv3x3x3,
    conv3x3x3_biased,
    fast_conv3x3x3,
    msl,
    msl_unless_downsampling,
    time_then_space,
)
from msfnet.models.c3d import C3D, PairMaker, conv_pair
from msfnet.models.resnet3d import ResNet3D, StemMaker, recomputed_stem3x7x7, stem3x7x7, stem_factored
from msfnet.types import nearest

# Table 3: what follows the 256- and the 512-channel stage. Each maker takes (channels, reduction).
ATTENTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, reduction: nn.Identity(),
    "fsam": FSAM,
    "se": SE,
    "cbam": CBAM,
    "nst": lambda channels, reduction: NST(),
}
GATES = (FSAM, SE, CBAM, NST)  # the classes of those that hold any weights

# Table 1: the first and the second convolution of an MSF block, for a number of num_splits.
PLACEMENTS: dict[str, Callable[[int], tuple[ConvMaker, ConvMaker]]] = {
    "a": lambda num_splits: (msl(num_splits), fast_conv3x3x3),
    "b": lambda num_splits: (fast_conv3x3x3, msl(num_splits)),
    "c": lambda num_splits: (msl_unless_downsampling(num_splits), msl(num_splits)),
    "d": lambda num_splits: (time_then_space, msl(num_splits)),
}


@dataclass(frozen=True)
class Shared:
    """The arguments that every network takes: `width_mult` multiplies all channels, `size` is in px."""

    attention: str = "none"
    reduction: int = 16
    width_mult: float = 1.0
    in_chans: int = 3
    num_frames: int = 8
    img_size: int = 112

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.in_chans, self.num_frames, self.img_size, self.img_size

    def make_attention(self, channels: int) -> nn.Module:
        if self.attention not in ATTENTIONS:
            raise ValueError(f"unknown attention {self.attention!r}; {nearest(self.attention, ATTENTIONS)}")
        return ATTENTIONS[self.attention](channels, self.reduction)


def _resnet(num_classes: int, shared: Shared, stem: StemMaker, block: BlockMaker, drop_path_rate: float) -> ResNet3D:
    return ResNet3D(
        num_classes,
        stem=stem,
        block=block,
        attention=shared.make_attention,
        width_mult=shared.width_mult,
        input_shape=shared.input_shape,
        drop_path_rate=drop_path_rate,
    )


def channels_last(model: nn.Module) -> nn.Module:
    """With kernels laid out in memory as batches of uint8 frames are, which spares every layer a copy.

    Slices of channels, and so MSF networks, are fastest in that layout. Kernels of one tap are the same in both and
    keep their strides, by which DDP would else warn that their gradients have others.
    """
    for parameter in model.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def _c3d(num_classes: int, shared: Shared, pair: PairMaker) -> C3D:
    return C3D(
        num_classes,
        pair=pair,
        attention=shared.make_attention,
        width_mult=shared.width_mult,
        input_shape=shared.input_shape,
    )


def r3d_18(
    num_classes: int, shared: Shared, *, drop_path_rate: float = 0.0, zero_init_residual: bool = False
) -> ResNet3D:
    """R3D-18, the baseline: two 3x3x3 convolutions a block."""
    block = partial(BasicBlock, first=conv3x3x3, second=conv3x3x3, zero_init_residual=zero_init_residual)
    return _resnet(num_classes, shared, stem3x7x7, block, drop_path_rate)


def msf_r3d_18(
    num_classes: int,
    shared: Shared,
    *,
    placement: str = "b",
    num_splits: int = 4,
    drop_path_rate: float = 0.0,
    zero_init_residual: bool = False,
) -> nn.Module:
    """MSF-R3D: R3D-18 with every block an MSF block; `placement` as in Table 1, `num_splits` the S of Table 2."""
    if placement not in PLACEMENTS:
        raise ValueError(f"unknown placement {placement!r}; {nearest(placement, PLACEMENTS)}")
    first, second = PLACEMENTS[placement](num_splits)
    block = partial(MSFBlock, first=first, second=second, zero_init_residual=zero_init_residual)
    return channels_last(_resnet(num_classes, shared, recomputed_stem3x7x7, block, drop_path_rate))


def r2plus1d_18(
    num_classes: int,
    shared: Shared,
    *,
    middle_per_conv: bool = False,
    drop_path_rate: float = 0.0,
    zero_init_residual: bool = False,
) -> ResNet3D:
    """R(2+1)D-18 as in torchvision; `middle_per_conv` is the older variant behind the 33.23 M of Table 5."""

    def block(c_in: int, c_out: int, stride: int, drop_rate: float) -> BasicBlock:
        first = FactoredConv(FactoredConv.middle_channels(c_in, c_out))
        second = FactoredConv(FactoredConv.middle_channels(c_out, c_out)) if middle_per_conv else first
        return BasicBlock(
            c_in, c_out, stride, drop_rate, first=first, second=second, zero_init_residual=zero_init_residual
        )

    return _resnet(num_classes, shared, stem_factored, block, drop_path_rate)


def c3d(num_classes: int, shared: Shared) -> C3D:
    """C3D, the classic network of eight convolutions."""
    return _c3d(num_classes, shared, conv_pair)


def msf_c3d(num_classes: int, shared: Shared, *, num_splits: int = 4) -> nn.Module:
    """MSF-C3D (section 4.4): an MSF block of stride 1 in place of each pair of convolutions."""

    def pair(c_in: int, c_out: int) -> MSFBlock:
        return MSFBlock(c_in, c_out, 1, first=conv3x3x3_biased, second=msl(num_splits), project=True)

    return channels_last(_c3d(num_classes, shared, pair))
