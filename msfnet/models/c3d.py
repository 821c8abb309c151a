"""C3D (Tran et al., 2015, "Learning spatiotemporal features with 3D convolutional networks") and MSF-C3D.

C3D has eight convolutions with biases and without norms, five max poolings and three linear layers. MSF-C3D (Yan et
al., 2023, section 4.4) has an MSF block in place of each pair of consecutive convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.layers.recomputation import ConvNormReLU, recompute_activations
from msfnet.models.blocks import AttentionMaker, check_positive, new_classifier, scaled

PairMaker = Callable[[int, int], nn.Module]

MIN_SIZE_PX = 16  # four halvings leave one pixel for the fifth pooling


def conv_relu(c_in: int, c_out: int) -> nn.Sequential:
    """Return a 3x3x3 convolution with bias and a ReLU: N c_in T H W -> N c_out T H W."""
    return nn.Sequential(nn.Conv3d(c_in, c_out, 3, padding=1), nn.ReLU(inplace=True))


def conv_pair(c_in: int, c_out: int) -> nn.Sequential:
    """Return two consecutive convolutions, as in stages three to five of C3D."""
    return nn.Sequential(conv_relu(c_in, c_out), conv_relu(c_out, c_out))


class Halve(nn.Module):
    """Max pooling by 2 in time, height and width: N C T H W -> N C T/2 H/2 W/2. A single frame is not pooled in time.

    Args:
        spatial_padding: Pixels of padding in height and width.
    """

    def __init__(self, spatial_padding: int = 0) -> None:
        super().__init__()
        self.padding = (0, spatial_padding, spatial_padding)

    def forward(self, x: Tensor) -> Tensor:
        kernel = (min(2, x.shape[2]), 2, 2)
        return F.max_pool3d(x, kernel, padding=self.padding)


def pooled_size(num_frames: int, size_px: int) -> tuple[int, int]:
    """Return the frames and pixels per side of the feature map that fc6 takes."""
    for _ in range(4):
        num_frames = max(1, num_frames // 2)
    return num_frames, (size_px // 16 + 2) // 2


class C3D(nn.Module):
    """Five stages of convolutions and pooling, three linear layers: float N C T H W -> logits N K.

    fc6 has one weight per value of the feature map, so the network takes clips of `input_shape` only.

    Args:
        num_classes: Number of logits K.
        pair: Maker of the convolutions of stages three to five: (c_in, c_out) -> module N c_in T H W -> N c_out T H W.
        attention: Maker of the module after the 256-channel stage and after the second 512-channel stage.
        width_mult: Multiplier on all channels.
        input_shape: C T H W of a clip, with H equal to W.

    Raises:
        ValueError: For numbers that must be above 0, clips of less than 16 px, and what the makers raise; in `forward`
            for clips of another shape.
    """

    attention_names = ("stage3.1", "stage5.1")
    classifier_name = "fc8"

    def __init__(
        self,
        num_classes: int,
        *,
        pair: PairMaker,
        attention: AttentionMaker,
        width_mult: float,
        input_shape: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        in_chans, num_frames, img_size, _ = input_shape
        check_positive(num_classes=num_classes, width_mult=width_mult, in_chans=in_chans, num_frames=num_frames)
        if img_size < MIN_SIZE_PX:
            raise ValueError(f"C3D halves its input five times and needs at least {MIN_SIZE_PX} px, found {img_size}")
        self.input_shape = input_shape
        c1, c2, c3, c4 = (scaled(c, width_mult) for c in (64, 128, 256, 512))
        hidden = scaled(4096, width_mult)
        self.stage1 = nn.Sequential(conv_relu(in_chans, c1), nn.MaxPool3d((1, 2, 2)))
        self.stage2 = nn.Sequential(conv_relu(c1, c2), Halve())
        self.stage3 = nn.Sequential(pair(c2, c3), attention(c3), Halve())
        self.stage4 = nn.Sequential(pair(c3, c4), Halve())
        self.stage5 = nn.Sequential(pair(c4, c4), attention(c4), Halve(spatial_padding=1))
        frames_left, px_left = pooled_size(num_frames, img_size)
        self.fc6 = nn.Linear(c4 * frames_left * px_left**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.recomputes = any(isinstance(module, ConvNormReLU) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x).flatten(1)  # N 512 T H W -> N C
        x = self.dropout(self.relu(self.fc6(x)))
        x = self.dropout(self.relu(self.fc7(x)))
        return self.fc8(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the linear layers: N C T H W -> N 512 T/16 H/32 W/32 (see `pooled_size`).

        Raises:
            ValueError: If the clips do not have the shape that the network was created for.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"this C3D was created for inputs of {self.input_shape}, found {tuple(x.shape[1:])}")
        with recompute_activations(self.recomputes and self.training and torch.is_grad_enabled()):
            x = self.stage3(self.stage2(self.stage1(x)))  # N 256 T/4 H/8 W/8
            return self.stage5(self.stage4(x))  # N 512 T/16 H/32 W/32

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a newly initialized one with `num_classes` logits.

        Raises:
            ValueError: Unless num_classes is above 0.
        """
        self.fc8 = new_classifier(self.fc8, num_classes)
