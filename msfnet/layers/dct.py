"""The two-dimensional discrete cosine transform that frequency channel attention projects on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
