"""Stochastic depth (Huang et al., 2016, "Deep networks with stochastic depth"): residual branches dropped at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zeroes a sample with probability `rate` and scales the others by 1 / (1 - rate): N ... -> N ...

    The expected value is that of evaluation, where the input passes unchanged.

    Args:
        rate: Probability of dropping a sample.

    Raises:
        ValueError: Unless 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"expected drop_path_rate of at least 0 and below 1, found {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate  # N 1 1 1 1
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def linear_rates(last: float, num_blocks: int) -> list[float]:
    """Return the drop rate of each block, which increases linearly to `last` (Huang et al., 2016, section 3)."""
    return [last * (number + 1) / num_blocks for number in range(num_blocks)]
