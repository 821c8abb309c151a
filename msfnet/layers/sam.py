"""SAM, the spatiotemporal attention module (section 3.2, Eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channel_summary(x: Tensor) -> Tensor:
    """The largest and the mean value over channels at each place and time: N C T H W -> N 2 T H W."""
    return torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)


class SAM(nn.Module):
    """Scale each place at each time: x * sigmoid(conv7x7x7(cat(max, mean over channels))). Shape is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(channel_summary(x)).sigmoid()
