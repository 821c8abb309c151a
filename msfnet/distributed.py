"""The group of processes that train or evaluate together: joining it, and exchanging values within it.

torchrun or SLURM starts the processes; without them there is one, rank 0 of 1, and every function works the same. The
functions that exchange values must be called by every process, in the same order.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from msfnet.types import UserError

T = TypeVar("T")

DEFAULT_PORT = 15000  # SLURM names none; jobs that share a machine take different ones above it
INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which a command is started once, not once for each task


# The group


def join() -> None:
    """Join the processes that torchrun or SLURM started with this one; do nothing where there are none.

    Values on the CPU are exchanged by gloo, and on the GPU by NCCL, so that agreeing on a number does not wait for the
    GPU. In all processes but the first, log messages below ERROR are dropped: the first one reports for all.

    Raises:
        UserError: More processes were started on this machine than it has GPUs.
    """
    if _is_joined() or not (found := _launched(os.environ)):
        return
    os.environ.update(found)
    gpus = torch.cuda.device_count()
    if gpus and local_world_size() > gpus:
        raise UserError(
            f"expected at most {gpus} processes on this machine, one for each GPU, found {local_world_size()}; "
            "start fewer, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    atexit.register(leave)  # a process that ends with its group still open may crash
    if rank():
        logging.getLogger("msfnet").setLevel(logging.ERROR)


def leave() -> None:
    """Leave the group, after which this process is on its own."""
    if _is_joined():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process in the group, from 0."""
    return dist.get_rank() if _is_joined() else 0


def world_size() -> int:
    """Return the number of processes in the group."""
    return dist.get_world_size() if _is_joined() else 1


def local_world_size() -> int:
    """Return how many processes of the group torchrun or SLURM started on this machine."""
    found = _launched(os.environ)
    return int(found["LOCAL_WORLD_SIZE"]) if found else 1


def _is_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _launched(variables: Mapping[str, str]) -> dict[str, str] | None:
    """Return torchrun's variables for this process, of SLURM's where that started it; None for a single process."""
    if int(variables.get("WORLD_SIZE") or 1) > 1 and "RANK" in variables:
        own = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}  # a launcher that names neither starts one on each machine
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return own | {name: variables[name] for name in names if name in variables}
    tasks = int(variables.get("SLURM_NTASKS") or 1)
    if tasks < 2 or "SLURM_PROCID" not in variables or variables.get("SLURM_JOB_NAME") in INTERACTIVE:
        return None
    job = re.sub(r"\D", "", variables.get("SLURM_JOB_ID", ""))
    return {
        "RANK": variables["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": variables["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks // int(variables.get("SLURM_NNODES") or 1)),
        "MASTER_ADDR": variables.get("MASTER_ADDR") or first_host(variables.get("SLURM_NODELIST", "127.0.0.1")),
        "MASTER_PORT": variables.get("MASTER_PORT") or str(DEFAULT_PORT + int(job[-4:] or 0)),
    }


def first_host(nodes: str) -> str:
    """Return the first machine of a list as SLURM writes it.

    >>> first_host("gpu[07-09,12],cpu1")
    'gpu07'
    """
    return re.sub(r"\[(\w+)[^\]]*\].*", r"\1", nodes).split(",")[0].split()[0]


# Exchange


def sum_tensor(values: Tensor) -> Tensor:
    """Return the sum of the processes' tensors of one shape, on the device of this one's."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def gather_numbers(*numbers: float) -> list[list[float]]:
    """Return the numbers of each process, by rank, after a single all-reduce on the CPU."""
    if world_size() == 1:
        return [list(numbers)]
    rows = torch.zeros(world_size(), len(numbers), dtype=torch.float64)
    rows[rank()] = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(rows)
    return rows.tolist()


def gather(value: T) -> list[T]:
    """Return the value of each process, by rank. It may be anything that pickles."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_first(function: Callable[[], T]) -> T:
    """Call a function in the first process only; its result is returned, or its UserError raised, in every one."""
    if world_size() == 1:
        return function()
    outcome: T | UserError | None = None
    if rank() == 0:
        try:
            outcome = function()
        except UserError as error:
            outcome = error
    outcome = gather(outcome)[0]
    if isinstance(outcome, UserError):
        raise outcome
    return outcome  # type: ignore[return-value]
