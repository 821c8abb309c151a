"""The processes that train or score together: which one this is, and what all of them hold.

Knows torch.distributed and nothing of how the group was started (`train.engine` does). Where none was, there is one.
Every process must come to each of these calls, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def announced() -> bool:
    """Whether torchrun or SLURM says that this process is one of several, before it has joined them."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1


def together() -> bool:
    return dist.is_available() and dist.is_initialized()


def leave() -> None:
    """Part from the others, for good: a group that is still open when its process ends may crash it."""
    if together():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if together() else 0


def count() -> int:
    return dist.get_world_size() if together() else 1


def device() -> torch.device:
    """Where tensors must lie that processes exchange."""
    nccl = together() and dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def add(values: Tensor) -> Tensor:
    """The sum of what each process holds, in the same place on the same device."""
    if count() == 1:
        return values
    moved = values.detach().clone().to(device())
    dist.all_reduce(moved)
    return moved.to(values.device)


def add_numbers(*numbers: float) -> list[float]:
    return add(torch.tensor(numbers, dtype=torch.float64)).tolist() if count() > 1 else list(numbers)


def each(number: float) -> list[float]:
    """The number that each process holds, by rank."""
    own = torch.zeros(count(), dtype=torch.float64)
    own[rank()] = number
    return add(own).tolist()


def gather(part: T) -> Sequence[T]:
    """What each process holds, by rank. Any value that pickles."""
    if count() == 1:
        return [part]
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, part)
    return parts
