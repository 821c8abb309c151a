"""Devices, precision and processes of a run: with `loggers` the only file that knows the trainer library (Lightning).

One process, torchrun, SLURM and several machines are the same to everything above: each process makes an Engine, and
what they must agree on goes through `msfnet.distributed`.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from msfnet import distributed
from msfnet.recipe import Train
from msfnet.types import UserError

Forward = Callable[[Tensor], Tensor]


def started_processes() -> tuple[int, int] | None:
    """(processes on each machine, machines) that torchrun or SLURM started this one among; None: nobody did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    if SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1:
        machines = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // machines, machines
    return None


class Engine:
    """What a run computes with. Making one joins this process to the others of the run.

    Raises UserError when the recipe wants another number of processes than were started.
    """

    def __init__(self, train: Train) -> None:
        here, machines = started_processes() or (1, 1)
        if train.devices not in ("auto", here):
            raise UserError(f"expected train.devices of {here}, as many as were started here, found {train.devices}")
        if train.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        together = here * machines > 1
        with quiet():
            self.fabric = Fabric(
                accelerator="cuda" if torch.cuda.is_available() else "cpu",
                devices=here,
                num_nodes=machines,
                # Norms are shared out at the end of each epoch; doing so at every step is what sync_batchnorm is for.
                strategy=DDPStrategy(broadcast_buffers=False) if together else "auto",
                precision=train.precision,
            )
            self.fabric.launch()
        if distributed.rank():  # the first process reports for all
            logging.getLogger("msfnet").setLevel(logging.ERROR)
        if together:
            atexit.register(distributed.leave)
        self.device: torch.device = self.fabric.device

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, compiled: bool) -> tuple[Forward, Any]:
        """The network and its optimizer as they are to be called in training; `model` itself stays what it was."""
        called: Any = torch.compile(model, dynamic=False) if compiled else model
        with quiet():
            return self.fabric.setup(called, optimizer)

    def call(self, model: nn.Module, x: Tensor) -> Tensor:
        """A network that was not set up, in the precision of the recipe."""
        with self.fabric.autocast():
            return model(self.fabric.strategy.precision.convert_input(x))

    def without_exchange(self, forward: Any, *, but: bool) -> AbstractContextManager[Any]:
        """Gradients of the parts of a step stay here, but for the last part's."""
        return nullcontext() if but or distributed.count() == 1 else self.fabric.no_backward_sync(forward)

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def precision_state(self) -> dict[str, Any]:
        """What the arithmetic itself remembers from step to step: the loss scale of fp16."""
        return dict(self.fabric.strategy.precision.state_dict())

    def load_precision_state(self, state: dict[str, Any]) -> None:
        self.fabric.strategy.precision.load_state_dict(state)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's own remarks to itself; what the user should know, msfnet says."""
    names = ("lightning.fabric", "lightning.pytorch", "lightning_fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(_fabric|\.fabric|\.pytorch)?.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
