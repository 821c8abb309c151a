"""Stochastic depth (Huang et al., 2016, "Deep networks with stochastic depth"): residual branches dropped by chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero for a share `rate` of the samples and x / (1 - rate) for the others: N ... -> N ...

    The mean stays what it is in evaluation, where x passes unchanged. No parameters, no buffers.

    Raises ValueError for a rate outside 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"expected a drop_path of at least 0 and below 1, found {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate  # N 1 1 1 1
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def linear_rates(highest: float, blocks: int) -> list[float]:
    """The rate of each block: growing in equal steps to `highest` at the last, as early features serve all blocks."""
    return [highest * (number + 1) / blocks for number in range(blocks)]
