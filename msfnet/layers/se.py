"""SE, squeeze and excitation (Hu et al., 2018): a rival in Table 3."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.gate import bottleneck


class SE(nn.Module):
    """Scale each channel by sigmoid(fc(global average)). Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3, 4))).sigmoid()[:, :, None, None, None]
