"""Several processes on this machine for one run, started as torchrun starts them. Knows nothing of what they do."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from msfnet.recipe import Train
from msfnet.training.engine import started_processes
from msfnet.training.signals import Interrupted
from msfnet.types import UserError

T = TypeVar("T")

SAYS = "UserError: "


def processes_to_start(train: Train) -> int:
    """How many processes this one has to start, itself doing nothing then; 0: it is one of the run's own.

    Raises UserError when the recipe asks for more GPUs than there are.
    """
    if train.devices in ("auto", 1) or started_processes():
        return 0
    gpus = torch.cuda.device_count()
    if gpus and int(train.devices) > gpus:
        raise UserError(f"expected train.devices of {gpus} or fewer, as many as there are GPUs, found {train.devices}")
    return int(train.devices)


def start(n: int, function: Callable[..., T], *arguments: Any) -> T:
    """Call `function` in `n` new processes that know each other; returns what the first one returns.

    When one fails all are ended. Raises UserError with the words of the one that failed, and Interrupted when this process
    was asked to stop: then it has asked the others, and waited for them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n)))
    config = LaunchConfig(
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    logging.disable(logging.CRITICAL)  # this process does nothing else, and would tell of the others by tracebacks
    try:
        result: T = elastic_launch(config, _recorded)(function, *arguments)[0]
        return result
    except SignalException as error:
        raise Interrupted(error.sigval) from error
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        told = [str(failure.message) for failure in (first, *error.failures.values())]
        words = next((text for text in told if SAYS in text), told[0])
        if SAYS in words:
            raise UserError(words.rpartition(SAYS)[2].splitlines()[0].strip("\"' ")) from error
        raise UserError(f"a process of the run failed: {words.strip().splitlines()[-1]}") from error
    finally:
        logging.disable(logging.NOTSET)


def _recorded(function: Callable[..., T], *arguments: Any) -> T | None:
    """In the new process: what it raises is kept for the one that started it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(function)(*arguments)
