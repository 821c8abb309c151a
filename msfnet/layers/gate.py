"""The bottleneck through which every channel attention decides: fc, ReLU, fc (SENet; Eq. 6)."""

from __future__ import annotations

from torch import nn


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
