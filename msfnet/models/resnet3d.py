"""Residual 3D networks of 18 layers: R3D, R(2+1)D and MSF-R3D are one backbone with other blocks.

R3D and R(2+1)D: Tran et al., 2018, "A closer look at spatiotemporal convolutions for action recognition", with
the module names of torchvision's VideoResNet, so that its weights load. MSF-R3D: Yan et al., 2023, Fig. 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msfnet.layers.drop_path import linear_rates
from msfnet.layers.recomputation import ConvNormReLU, lean
from msfnet.models.blocks import AttentionMaker, BlockMaker, scaled

STAGE_CHANNELS = (64, 128, 256, 512)

StemMaker = Callable[[int, int], nn.Sequential]


def stem3x7x7(c_in: int, c_out: int) -> nn.Sequential:
    """Convolution 3x7x7 with stride (1, 2, 2), norm, ReLU: N c_in T H W -> N c_out T H/2 W/2."""
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
    )


def recomputed_stem3x7x7(c_in: int, c_out: int) -> nn.Sequential:
    """The same, whose norm and ReLU `layers.lean` makes again instead of keeping them."""
    return ConvNormReLU(stem3x7x7(c_in, c_out)[0], c_out)


def stem_factored(c_in: int, c_out: int) -> nn.Sequential:
    """The stem of R(2+1)D: space, then time, with 45 channels between them for an output of 64."""
    middle = max(1, c_out * 45 // 64)
    return nn.Sequential(
        nn.Conv3d(c_in, middle, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, c_out, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
    )


class ResNet3D(nn.Module):
    """Stem, four stages of two blocks, global average pool, linear: N C T H W float -> logits N K.

    `attention` makes the module that follows the third and the fourth stage (256 and 512 channels at width_mult 1):
    the only placement that gives the paper's parameter counts. `input_shape` (C, T, H, W) is the size the network
    is meant for; any other size is accepted. `drop_path` is the last block's rate of stochastic depth.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stem: StemMaker,
        block: BlockMaker,
        attention: AttentionMaker,
        width_mult: float,
        input_shape: tuple[int, int, int, int],
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels = [scaled(c, width_mult) for c in STAGE_CHANNELS]
        self.stem = stem(input_shape[0], channels[0])
        rates = iter(linear_rates(drop_path_rate, 2 * len(channels)))

        def stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(block(c_in, c_out, stride, next(rates)), block(c_out, c_out, 1, next(rates)))

        self.layer1 = stage(channels[0], channels[0], 1)
        self.layer2 = stage(channels[0], channels[1], 2)
        self.layer3 = stage(channels[1], channels[2], 2)
        self.attention3 = attention(channels[2])
        self.layer4 = stage(channels[2], channels[3], 2)
        self.attention4 = attention(channels[3])
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels[3], num_classes)
        self.lean = any(isinstance(module, ConvNormReLU) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        with lean(self.lean and self.training and torch.is_grad_enabled()):
            x = self.layer2(self.layer1(self.stem(x)))  # N 128 T/2 H/4 W/4
            x = self.attention3(self.layer3(x))  # N 256 T/4 H/8 W/8
            x = self.attention4(self.layer4(x))  # N 512 T/8 H/16 W/16
        return self.fc(self.avgpool(x).flatten(1))
