"""FSAM, multi-frequency channel attention followed by spatiotemporal attention (section 3.2, Eq. 8)."""

from __future__ import annotations

from torch import nn

from msfnet.layers.fam import FAM
from msfnet.layers.sam import SAM


class FSAM(nn.Sequential):
    """First what (FAM), then where and when (SAM, computed on FAM's output). Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(FAM(channels, reduction), SAM())
