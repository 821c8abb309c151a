"""The bottleneck through which every channel attention decides: fc, ReLU, fc (SENet; Eq. 6).

SE, squeeze and excitation (Hu et al., 2018): a rival in Table 3."""

from __future__ import annotations

from torch import Tensor, nn


def bottleneck(channels: int, reduction: int) -> nn.Sequential:
    """fc C -> C/reduction -> C without biases; maps N C to N C. The caller applies the sigmoid.

    Raises ValueError when the bottleneck would have no channel left.
    """
    hidden = channels // reduction
    if hidden < 1:
        raise ValueError(f"channel attention needs at least reduction={reduction} channels, found {channels}")
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False), nn.ReLU(inplace=True), nn.Linear(hidden, channels, bias=False)
    )


class SE(nn.Module):
    """Scale each channel by sigmoid(fc(global average)). Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3, 4))).sigmoid()[:, :, None, None, None]
