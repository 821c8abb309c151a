"""Residual 3D networks of 18 layers: R3D, R(2+1)D and MSF-R3D are one backbone with different blocks.

R3D and R(2+1)D: Tran et al., 2018, "A closer look at spatiotemporal convolutions for action recognition", with the
module names of torchvision's VideoResNet, so that its weights load. MSF-R3D: Yan et al., 2023, section 3.3, Fig. 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msfnet.layers.drop_path import linear_rates
from msfnet.layers.recomputation import ConvNormReLU, recompute_activations
from msfnet.models.blocks import AttentionMaker, BlockMaker, check_positive, new_classifier, scaled

STAGE_CHANNELS = (64, 128, 256, 512)

StemMaker = Callable[[int, int], nn.Sequential]


def stem3x7x7(c_in: int, c_out: int) -> nn.Sequential:
    """Return a 3x7x7 convolution of stride (1, 2, 2), norm, ReLU: N c_in T H W -> N c_out T H/2 W/2."""
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
    )


def recomputed_stem3x7x7(c_in: int, c_out: int) -> nn.Sequential:
    """Return `stem3x7x7` whose norm and ReLU are recomputed in the backward pass (`layers.recomputation`)."""
    return ConvNormReLU(stem3x7x7(c_in, c_out)[0], c_out)


def stem_factored(c_in: int, c_out: int) -> nn.Sequential:
    """Return the stem of R(2+1)D: 1x7x7, then 3x1x1, with 45 channels between them for 64 output channels."""
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
    """Stem, four stages of two blocks, global average pooling, linear layer: float N C T H W -> logits N K.

    Inputs of any number of frames and any height and width are accepted.

    Args:
        num_classes: Number of logits K.
        stem: Maker of the stem: (c_in, c_out) -> module.
        block: Maker of a block, see `models.blocks`.
        attention: Maker of the module after the third and after the fourth stage (256 and 512 channels at width 1).
            Section 3.3 places FSAM there; no other placement gives the paper's parameter counts.
        width_mult: Multiplier on all channels.
        input_shape: C T H W of the clips the network is meant for; only C restricts it.
        drop_path_rate: Stochastic depth rate of the last block; the rate increases linearly over the blocks.

    Raises:
        ValueError: For numbers that must be above 0, a drop rate outside 0 <= rate < 1, and what the makers raise.
    """

    attention_names = ("attention3", "attention4")
    classifier_name = "fc"

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
        in_chans, num_frames, img_size, _ = input_shape
        check_positive(
            num_classes=num_classes,
            width_mult=width_mult,
            in_chans=in_chans,
            num_frames=num_frames,
            img_size=img_size,
        )
        self.input_shape = input_shape
        channels = [scaled(c, width_mult) for c in STAGE_CHANNELS]
        self.stem = stem(in_chans, channels[0])
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
        self.recomputes = any(isinstance(module, ConvNormReLU) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.forward_features(x)).flatten(1))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before pooling: N C T H W -> N 512 T/8 H/16 W/16 at width 1, sizes rounded up."""
        with recompute_activations(self.recomputes and self.training and torch.is_grad_enabled()):
            x = self.layer2(self.layer1(self.stem(x)))  # N 128 T/2 H/4 W/4
            x = self.attention3(self.layer3(x))  # N 256 T/4 H/8 W/8
            return self.attention4(self.layer4(x))  # N 512 T/8 H/16 W/16

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a newly initialized one with `num_classes` logits.

        Raises:
            ValueError: Unless num_classes is above 0.
        """
        self.fc = new_classifier(self.fc, num_classes)
