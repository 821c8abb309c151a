"""C3D (Tran et al., 2015, "Learning spatiotemporal features with 3D convolutional networks") and MSF-C3D.

Eight convolutions with biases and no norm, five poolings, three linear layers. MSF-C3D (Yan et al., 2023,
section 4.4) puts one MSF block in place of each cascaded pair of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.layers.recomputation import ConvNormReLU, lean
from msfnet.models.blocks import AttentionMaker, scaled

PairMaker = Callable[[int, int], nn.Module]

SMALLEST_PX = 16  # four halvings leave one pixel for the last pooling


def conv_relu(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(c_in, c_out, 3, padding=1), nn.ReLU(inplace=True))


def conv_pair(c_in: int, c_out: int) -> nn.Sequential:
    """Two cascaded convolutions, as in stages three to five of C3D."""
    return nn.Sequential(conv_relu(c_in, c_out), conv_relu(c_out, c_out))


class Halve(nn.Module):
    """Max pooling by 2 in time, height and width_mult. A single frame is left as it is: there is nothing to pool."""

    def __init__(self, spatial_padding: int = 0) -> None:
        super().__init__()
        self.padding = (0, spatial_padding, spatial_padding)

    def forward(self, x: Tensor) -> Tensor:
        kernel = (min(2, x.shape[2]), 2, 2)
        return F.max_pool3d(x, kernel, padding=self.padding)


def pooled_size(frames: int, size_px: int) -> tuple[int, int]:
    """Frames and pixels of a side that are left before fc6."""
    for _ in range(4):
        frames = max(1, frames // 2)
    return frames, (size_px // 16 + 2) // 2


class C3D(nn.Module):
    """N C T H W float -> logits N K. `pair` makes stages three to five, `attention` follows the last two widths.

    fc6 is as large as the `input_shape` (C, T, H, W) asks, and the network takes no other.
    Attention follows the 256-channel stage and the last 512-channel one, where most channels meet.

    Raises ValueError for inputs under 16 px, and at the call for a shape that the network was not made for.
    """

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
        c_in, frames, size_px, _ = input_shape
        if size_px < SMALLEST_PX:
            raise ValueError(f"C3D halves its input five times and needs at least {SMALLEST_PX} px, found {size_px}")
        self.input_shape = input_shape
        c1, c2, c3, c4 = (scaled(c, width_mult) for c in (64, 128, 256, 512))
        hidden = scaled(4096, width_mult)
        self.stage1 = nn.Sequential(conv_relu(c_in, c1), nn.MaxPool3d((1, 2, 2)))
        self.stage2 = nn.Sequential(conv_relu(c1, c2), Halve())
        self.stage3 = nn.Sequential(pair(c2, c3), attention(c3), Halve())
        self.stage4 = nn.Sequential(pair(c3, c4), Halve())
        self.stage5 = nn.Sequential(pair(c4, c4), attention(c4), Halve(spatial_padding=1))
        frames_left, px_left = pooled_size(frames, size_px)
        self.fc6 = nn.Linear(c4 * frames_left * px_left**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.lean = any(isinstance(module, ConvNormReLU) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"this C3D was made for inputs of {self.input_shape}, found {tuple(x.shape[1:])}")
        with lean(self.lean and self.training and torch.is_grad_enabled()):
            x = self.stage5(self.stage4(self.stage3(self.stage2(self.stage1(x)))))
        x = self.dropout(self.relu(self.fc6(x.flatten(1))))
        x = self.dropout(self.relu(self.fc7(x)))
        return self.fc8(x)
