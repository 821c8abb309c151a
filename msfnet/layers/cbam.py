"""CBAM (Woo et al., 2018) with a spatial part in three dimensions: a rival in Table 3."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.fsam import SAM
from msfnet.layers.se import bottleneck


class ChannelAttention(nn.Module):
    """Scale each channel by sigmoid(fc(average) + fc(maximum)), one fc for both. Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3, 4))) + self.fc(x.amax((2, 3, 4)))
        return x * gate.sigmoid()[:, :, None, None, None]


class CBAM(nn.Sequential):
    """Channel attention from average and maximum, then a 7x7x7 spatial attention. Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(ChannelAttention(channels, reduction), SAM())
