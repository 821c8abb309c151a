"""SAM, the spatiotemporal attention module (section 3.2, Eq. 7)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
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
        return x * self.gate(channel_summary(x)).to(x.dtype)

    def gate(self, summary: Tensor) -> Tensor:
        """In 32 bits or better, in mixed precision too: oneDNN's bf16 gradient of it is wrong for few frames."""
        exact = torch.promote_types(summary.dtype, torch.float32)
        with nullcontext() if summary.is_meta else torch.autocast(summary.device.type, enabled=False):
            return F.conv3d(summary.to(exact), self.conv.weight.to(exact), padding=3).sigmoid()
