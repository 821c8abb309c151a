"""The two-dimensional discrete cosine transform that frequency channel attention projects on.

FAM, the frequency channel attention module (section 3.2, Eq. 5 and 6; FcaNet, Qin et al., 2021).

SAM, the spatiotemporal attention module (section 3.2, Eq. 7).

FSAM, multi-frequency channel attention followed by spatiotemporal attention (section 3.2, Eq. 8)."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msfnet.layers.se import bottleneck

BASIS_SIZE = 7

# The 16 (vertical, horizontal) frequencies that served best one by one in FcaNet (Qin et al., 2021, "top16").
TOP16 = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0),
    (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2),
)  # fmt: skip


def dct_rows(frequencies: list[int], size: int = BASIS_SIZE) -> Tensor:
    """Rows of the orthonormal DCT-II matrix: (len(frequencies), size).

    Row u is sqrt(2 / size) cos(pi u (i + 1/2) / size), or the constant 1 / sqrt(size) for u = 0.
    """
    u = torch.tensor(frequencies, dtype=torch.float64)[:, None]
    i = torch.arange(size, dtype=torch.float64)[None, :]
    scale = torch.where(u == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    return (scale * torch.cos(math.pi * u * (i + 0.5) / size)).float()


def area_resampling(n_out: int, n_in: int, like: Tensor) -> Tensor:
    """The (n_out, n_in) matrix that averages n_in samples over n_out equal intervals; its rows sum to one.

    Average pooling when n_in is a multiple of n_out, and exact for every other size, smaller ones included.
    """
    edges_out = torch.arange(n_out + 1, device=like.device, dtype=like.dtype) / n_out
    edges_in = torch.arange(n_in + 1, device=like.device, dtype=like.dtype) / n_in
    upper = torch.minimum(edges_out[1:, None], edges_in[None, 1:])
    lower = torch.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return (upper - lower).clamp(min=0) * n_out


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


class FSAM(nn.Sequential):
    """First what (FAM), then where and when (SAM, computed on FAM's output). Shape N C T H W is kept."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(FAM(channels, reduction), SAM())
