"""FSAM, frequency channel and spatiotemporal attention (Yan et al., 2023, section 3.2): FAM, then SAM.

FAM (Eq. 5 and 6) is the multi-spectral channel attention of FcaNet (Qin et al., 2021) on the average over time.
SAM (Eq. 7) is the spatial attention of CBAM (Woo et al., 2018) with a kernel that covers time as well.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASIS_SIZE = 7

# The 16 (vertical, horizontal) frequencies of the 7x7 DCT with the best accuracy on their own in FcaNet ("top16").
TOP16 = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0),
    (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2),
)  # fmt: skip


def bottleneck(channels: int, reduction: int) -> nn.Sequential:
    """Return the fc of Eq. 6, as in SENet: linear C -> C/reduction, ReLU, linear C/reduction -> C, without biases.

    Args:
        channels: Channels C of the feature map.
        reduction: Reduction ratio of the hidden layer.

    Returns:
        A module N C -> N C. Its caller applies the sigmoid.

    Raises:
        ValueError: If the hidden layer would have no channel.
    """
    hidden = channels // reduction
    if hidden < 1:
        raise ValueError(f"channel attention needs at least reduction={reduction} channels, found {channels}")
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False), nn.ReLU(inplace=True), nn.Linear(hidden, channels, bias=False)
    )


def dct_rows(frequencies: list[int], size: int = BASIS_SIZE) -> Tensor:
    """Return rows of the orthonormal DCT-II matrix.

    Row u is sqrt(2 / size) cos(pi u (i + 1/2) / size), or the constant 1 / sqrt(size) for u = 0.

    Args:
        frequencies: One frequency u per row.
        size: Number of samples i of the basis.

    Returns:
        A matrix (len(frequencies), size).
    """
    u = torch.tensor(frequencies, dtype=torch.float64)[:, None]
    i = torch.arange(size, dtype=torch.float64)[None, :]
    scale = torch.where(u == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    return (scale * torch.cos(math.pi * u * (i + 0.5) / size)).float()


def area_resampling(n_out: int, n_in: int, like: Tensor) -> Tensor:
    """Return the matrix that resamples n_in samples to n_out by area (interval averages).

    It is average pooling when n_in is a multiple of n_out, and exact for every other size, smaller ones included.

    Args:
        n_out: Number of output samples.
        n_in: Number of input samples.
        like: Tensor whose device and element type the matrix gets.

    Returns:
        A matrix (n_out, n_in) whose rows sum to one.
    """
    edges_out = torch.arange(n_out + 1, device=like.device, dtype=like.dtype) / n_out
    edges_in = torch.arange(n_in + 1, device=like.device, dtype=like.dtype) / n_in
    upper = torch.minimum(edges_out[1:, None], edges_in[None, 1:])
    lower = torch.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return (upper - lower).clamp(min=0) * n_out


class FrequencyPool(nn.Module):
    """Eq. 5: average over time, then one 2D DCT coefficient per channel: N C T H W -> N C.

    The channels are divided into as many equal groups as there are frequencies, and each group is projected on its
    frequency. A map of any size is resampled by area to the 7x7 basis. Pooling and DCT are both linear, so they are one
    H x W weight per frequency, and frequencies stay distinct on maps smaller than 7x7. Frequency (0, 0) alone is 7
    times global average pooling.

    Args:
        channels: Channels C, a multiple of the number of frequencies.
        frequencies: (vertical, horizontal) frequency of each group, from 0 to 6.

    Raises:
        ValueError: If the channels cannot be divided into the groups, or a frequency is outside the basis.
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
        """Return the weight of each position for each frequency: (frequencies, height, width)."""
        rows = self.vertical @ area_resampling(BASIS_SIZE, height, self.vertical)  # n H
        columns = self.horizontal @ area_resampling(BASIS_SIZE, width, self.horizontal)  # n W
        return rows[:, :, None] * columns[:, None, :]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        weight = self.weight(height, width).to(x.dtype)
        groups = x.mean(2).unflatten(1, (len(weight), -1))  # N C T H W -> N n C/n H W
        return torch.einsum("ngchw,ghw->ngc", groups, weight).flatten(1)  # N n C/n -> N C


class FAM(nn.Module):
    """Frequency channel attention, Eq. 6: x * sigmoid(fc(Freq(x))). The shape N C T H W is preserved.

    Args:
        channels: Channels C, a multiple of the number of frequencies and at least `reduction`.
        reduction: Reduction ratio of `fc`.
        frequencies: Frequencies of the channel groups, see `FrequencyPool`.

    Raises:
        ValueError: If `channels` does not meet these conditions.
    """

    def __init__(self, channels: int, reduction: int = 16, frequencies: tuple[tuple[int, int], ...] = TOP16) -> None:
        super().__init__()
        self.pool = FrequencyPool(channels, frequencies)
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))

    def gate(self, frequencies: Tensor) -> Tensor:
        """Return the factor of each channel, from 0 to 1, given its DCT coefficient: N C -> N C 1 1 1."""
        return self.fc(frequencies).sigmoid()[:, :, None, None, None]


def channel_summary(x: Tensor) -> Tensor:
    """Return the maximum and mean over the channels at every position: N C T H W -> N 2 T H W."""
    return torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)


class SAM(nn.Module):
    """Spatiotemporal attention, Eq. 7: x * sigmoid(conv7x7x7(cat(max, mean over channels))).

    The shape N C T H W is preserved. The convolution has no bias.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(channel_summary(x)).to(x.dtype)

    def gate(self, summary: Tensor) -> Tensor:
        """Return the factor of each position, from 0 to 1, given `channel_summary`: N 2 T H W -> N 1 T H W.

        It is computed in 32 bits or more under autocast too: oneDNN's bf16 gradient is wrong for kernels that are
        longer than the clip.
        """
        dtype = torch.promote_types(summary.dtype, torch.float32)
        with nullcontext() if summary.is_meta else torch.autocast(summary.device.type, enabled=False):
            return F.conv3d(summary.to(dtype), self.conv.weight.to(dtype), padding=3).sigmoid()


class FSAM(nn.Sequential):
    """Frequency channel attention, then spatiotemporal attention of its output (Eq. 8).

    The shape N C T H W is preserved.

    Args:
        channels: Channels C, a multiple of 16 and at least `reduction`.
        reduction: Reduction ratio of FAM's `fc`.

    Raises:
        ValueError: As `FAM`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(FAM(channels, reduction), SAM())
