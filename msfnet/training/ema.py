"""A moving average of a network's weights while it trains. Knows torch, not the trainer and not the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The exponential moving average of all that a network's state dict holds, the norms' statistics included.

    After each step: average = d average + (1 - d) weights, where d is `decay`, or (1 + steps) / (10 + steps) while that
    is lower: the first weights are noise and soon forgotten. Whole numbers (counts of batches) are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that a step of the optimizer has just left."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in model.state_dict().items():
            average = self._on_device_of(key, value)
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Within the block the network holds the average; after it, bit for bit its own weights again."""
        own = {key: value.detach().clone() for key, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the average and the steps it holds."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.average = {key: value.clone() for key, value in state["average"].items()}

    def _on_device_of(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Checkpoints and networks that move bring the average to where the weights are."""
        if self.average[key].device != value.device:
            self.average[key] = self.average[key].to(value.device)
        return self.average[key]
