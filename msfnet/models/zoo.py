"""The networks of the paper: a backbone x the convolutions in its blocks x the attention after its stages.

Each of `r3d_18`, `r2plus1d_18`, `msf_r3d_18`, `c3d` and `msf_c3d` makes a network with newly initialized weights.
Besides those that its docstring explains, it takes:

- `num_classes`: number of logits.
- `attention`: a name in `ATTENTIONS` or a callable channels -> module that preserves N C T H W.
- `reduction`: reduction ratio of named channel attention.
- `width_mult`: multiplier on all channels.
- `in_chans`, `num_frames`, `img_size`: C, T and H = W of a clip, in frames and pixels.

They raise ValueError for invalid values; `models.registry.create_model` turns it into a UserError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from msfnet.layers.attention import CBAM, NST, SE
from msfnet.layers.fsam import FSAM
from msfnet.models.blocks import (
    AttentionMaker,
    BasicBlock,
    ConvMaker,
    FactoredConv,
    MSFBlock,
    check_positive,
    conv3x3x3,
    conv3x3x3_biased,
    fast_conv3x3x3,
    msl,
    msl_unless_downsampling,
    time_then_space,
)
from msfnet.models.c3d import C3D, PairMaker, conv_pair
from msfnet.models.resnet3d import ResNet3D, recomputed_stem3x7x7, stem3x7x7, stem_factored
from msfnet.types import nearest

Network = TypeVar("Network", ResNet3D, C3D)

# Table 3: the module after the 256-channel and after the 512-channel stage, from (channels, reduction).
ATTENTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, reduction: nn.Identity(),
    "fsam": FSAM,
    "se": SE,
    "cbam": CBAM,
    "nst": lambda channels, reduction: NST(),
}

# Table 1: makers of the first and of the second convolution of an MSF block, from the number of splits.
PLACEMENTS: dict[str, Callable[[int], tuple[ConvMaker, ConvMaker]]] = {
    "a": lambda num_splits: (msl(num_splits), fast_conv3x3x3),
    "b": lambda num_splits: (fast_conv3x3x3, msl(num_splits)),
    "c": lambda num_splits: (msl_unless_downsampling(num_splits), msl(num_splits)),
    "d": lambda num_splits: (time_then_space, msl(num_splits)),
}


def attention_maker(attention: str | AttentionMaker, reduction: int) -> AttentionMaker:
    """Return the maker of a named attention, or the given one.

    Raises:
        ValueError: For an unknown name, and for a reduction that is not above 0.
    """
    if callable(attention):
        return attention
    if attention not in ATTENTIONS:
        hint = nearest(str(attention), ATTENTIONS)
        raise ValueError(f"expected a name or a callable as attention, found {attention!r}; {hint}")
    check_positive(reduction=reduction)
    return lambda channels: ATTENTIONS[attention](channels, reduction)


def initialize(model: Network) -> Network:
    """Initialize all weights but those of attention, which keep the initialization of their module.

    Convolutions and linear layers get He's normal initialization: fan-out before a batch norm, as R3D was published,
    and fan-in in C3D's layers, which have no norm. The last layer gets a standard deviation of 0.01. SE, FcaNet and
    CBAM were published with PyTorch's default for attention; with He's, FAM's logits have a standard deviation of 4 to
    7, and a third of its gates are saturated before training.
    """
    attention = {layer for name in model.attention_names for layer in model.get_submodule(name).modules()}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv3d | nn.Linear) and m not in attention]
    for layer in layers:
        normed = isinstance(layer, nn.Conv3d) and layer.bias is None
        nn.init.kaiming_normal_(layer.weight, mode="fan_out" if normed else "fan_in", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.01)
    return model


Module = TypeVar("Module", bound=nn.Module)


def channels_last(model: Module) -> Module:
    """Lay out 5D weights channels-last in memory, as batches of uint8 frames are, which saves every layer a copy.

    Slices of channels, and so MSF networks, are fastest in that layout. Kernels of one tap are the same in both layouts
    and keep their strides: DDP warns about gradients with other strides.
    """
    for parameter in model.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def r3d_18(
    num_classes: int = 101,
    *,
    conv: ConvMaker = conv3x3x3,
    attention: str | AttentionMaker = "none",
    reduction: int = 16,
    width_mult: float = 1.0,
    drop_path_rate: float = 0.0,
    zero_init_residual: bool = False,
    in_chans: int = 3,
    num_frames: int = 8,
    img_size: int = 112,
) -> ResNet3D:
    """R3D-18 (Tran et al., 2018), the paper's baseline: two 3x3x3 convolutions per block.

    Args:
        conv: Maker of both convolutions of a block.
        drop_path_rate: Stochastic depth rate of the last block.
        zero_init_residual: Initialize the last norm of every residual branch to zero.
    """
    model = ResNet3D(
        num_classes,
        stem=stem3x7x7,
        block=partial(BasicBlock, first=conv, second=conv, zero_init_residual=zero_init_residual),
        attention=attention_maker(attention, reduction),
        width_mult=width_mult,
        input_shape=(in_chans, num_frames, img_size, img_size),
        drop_path_rate=drop_path_rate,
    )
    return initialize(model)


def r2plus1d_18(
    num_classes: int = 101,
    *,
    middle_per_conv: bool = False,
    attention: str | AttentionMaker = "none",
    reduction: int = 16,
    width_mult: float = 1.0,
    drop_path_rate: float = 0.0,
    zero_init_residual: bool = False,
    in_chans: int = 3,
    num_frames: int = 8,
    img_size: int = 112,
) -> ResNet3D:
    """R(2+1)D-18 (Tran et al., 2018), with torchvision's widths.

    Args:
        middle_per_conv: Compute the middle width for every convolution instead of once per block, as in an older public
            variant, which has the 33.23 M parameters of Table 5.
        drop_path_rate: Stochastic depth rate of the last block.
        zero_init_residual: Initialize the last norm of every residual branch to zero.
    """

    def block(c_in: int, c_out: int, stride: int, drop_rate: float) -> BasicBlock:
        first = FactoredConv(FactoredConv.middle_channels(c_in, c_out))
        second = FactoredConv(FactoredConv.middle_channels(c_out, c_out)) if middle_per_conv else first
        return BasicBlock(
            c_in, c_out, stride, drop_rate, first=first, second=second, zero_init_residual=zero_init_residual
        )

    model = ResNet3D(
        num_classes,
        stem=stem_factored,
        block=block,
        attention=attention_maker(attention, reduction),
        width_mult=width_mult,
        input_shape=(in_chans, num_frames, img_size, img_size),
        drop_path_rate=drop_path_rate,
    )
    return initialize(model)


def msf_r3d_18(
    num_classes: int = 101,
    *,
    num_splits: int = 4,
    placement: str = "b",
    convs: tuple[ConvMaker, ConvMaker] | None = None,
    attention: str | AttentionMaker = "none",
    reduction: int = 16,
    width_mult: float = 1.0,
    drop_path_rate: float = 0.0,
    zero_init_residual: bool = False,
    in_chans: int = 3,
    num_frames: int = 8,
    img_size: int = 112,
) -> ResNet3D:
    """MSF-R3D (section 3.3): R3D-18 with every block an MSF block.

    Args:
        num_splits: S of Table 2.
        placement: Where MSL is in a block, (a) to (d) of Table 1.
        convs: Makers of the first and the second convolution of a block, in place of those of `placement`.
        drop_path_rate: Stochastic depth rate of the last block.
        zero_init_residual: Initialize the last norm of every residual branch to zero.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"unknown placement {placement!r}; {nearest(str(placement), PLACEMENTS)}")
    first, second = convs or PLACEMENTS[placement](num_splits)
    model = ResNet3D(
        num_classes,
        stem=recomputed_stem3x7x7,
        block=partial(MSFBlock, first=first, second=second, zero_init_residual=zero_init_residual),
        attention=attention_maker(attention, reduction),
        width_mult=width_mult,
        input_shape=(in_chans, num_frames, img_size, img_size),
        drop_path_rate=drop_path_rate,
    )
    return initialize(channels_last(model))


def c3d(
    num_classes: int = 101,
    *,
    pair: PairMaker = conv_pair,
    attention: str | AttentionMaker = "none",
    reduction: int = 16,
    width_mult: float = 1.0,
    in_chans: int = 3,
    num_frames: int = 16,
    img_size: int = 112,
) -> C3D:
    """C3D (Tran et al., 2015).

    Args:
        pair: Maker of the pairs of convolutions in stages three to five: (c_in, c_out) -> module.
    """
    model = C3D(
        num_classes,
        pair=pair,
        attention=attention_maker(attention, reduction),
        width_mult=width_mult,
        input_shape=(in_chans, num_frames, img_size, img_size),
    )
    return initialize(model)


def msf_c3d(
    num_classes: int = 101,
    *,
    num_splits: int = 4,
    conv: ConvMaker = conv3x3x3_biased,
    attention: str | AttentionMaker = "none",
    reduction: int = 16,
    width_mult: float = 1.0,
    in_chans: int = 3,
    num_frames: int = 16,
    img_size: int = 112,
) -> C3D:
    """MSF-C3D (section 4.4): C3D with an MSF block of stride 1 in place of each pair of convolutions.

    Args:
        num_splits: Number of splits S of MSL.
        conv: Maker of the first convolution of a block.
    """

    def pair(c_in: int, c_out: int) -> MSFBlock:
        return MSFBlock(c_in, c_out, 1, first=conv, second=msl(num_splits), project=True)

    model = C3D(
        num_classes,
        pair=pair,
        attention=attention_maker(attention, reduction),
        width_mult=width_mult,
        input_shape=(in_chans, num_frames, img_size, img_size),
    )
    return initialize(channels_last(model))
