"""FAM, the frequency channel attention module (section 3.2, Eq. 5 and 6; FcaNet, Qin et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msfnet.layers.dct import BASIS_SIZE, TOP16, area_resampling, dct_rows
from msfnet.layers.gate import bottleneck


class FrequencyPool(nn.Module):
    """Average over time, then project each group of channels on its own DCT frequency: N C T H W -> N C.

    Channels are cut into as many equal groups as there are `frequencies` (vertical, horizontal), each below 7.
    A map of any size is resampled by area to the 7x7 basis; both steps are linear, so they fold into one
    H x W weight per frequency. Frequency (0, 0) alone is 7 times global average pooling.

    Raises ValueError when the channels do not divide into the groups, or a frequency lies outside the basis.
    """

    def __init__(self, channels: int, frequencies: tuple[tuple[int, int], ...] = TOP16) -> None:
        super().__init__()
        if channels % len(frequencies):
            raise ValueError(
                f"FAM needs channels divisible by its {len(frequencies)} frequencies, found {channels} channels"
            )
        if not all(0 <= u < BASIS_SIZE for pair in frequencies for u in pair):
            raise ValueError(f"FAM needs frequencies from 0 to {BASIS_SIZE - 1}, found {frequencies}")
        self.vertical: Tensor
        self.horizontal: Tensor
        self.register_buffer("vertical", dct_rows([v for v, _ in frequencies]), persistent=False)
        self.register_buffer("horizontal", dct_rows([h for _, h in frequencies]), persistent=False)

    def weight(self, height: int, width: int) -> Tensor:
        """What each frequency multiplies a map by: (frequencies, height, width)."""
        rows = self.vertical @ area_resampling(BASIS_SIZE, height, self.vertical)  # n H
        columns = self.horizontal @ area_resampling(BASIS_SIZE, width, self.horizontal)  # n W
        return rows[:, :, None] * columns[:, None, :]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        weight = self.weight(height, width).to(x.dtype)
        groups = x.mean(2).unflatten(1, (len(weight), -1))  # N C T H W -> N n C/n H W
        return torch.einsum("ngchw,ghw->ngc", groups, weight).flatten(1)


class FAM(nn.Module):
    """Scale each channel by what its frequency says of it: x * sigmoid(fc(Freq(x))). Shape N C T H W is kept.

    Raises ValueError when `channels` are not divisible by the number of frequencies or fewer than `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16, frequencies: tuple[tuple[int, int], ...] = TOP16) -> None:
        super().__init__()
        self.pool = FrequencyPool(channels, frequencies)
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(self.pool(x)).sigmoid()[:, :, None, None, None]
