"""Devices, precision and gradient exchange of a run: with `loggers` the only module that uses Lightning.

One process, torchrun, SLURM and several machines are the same to everything above: each process creates an Engine, and
values are exchanged through `msfnet.distributed`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from msfnet import distributed
from msfnet.inference.network import choose_device
from msfnet.recipe import Train
from msfnet.types import UserError

Forward = Callable[[Tensor], Tensor]


class Engine:
    """What a run computes with. Its creation joins this process to the others of the run.

    Args:
        train: The table of the recipe.
        device: Where to compute; by default a GPU if there is one. Each process of a group takes its own GPU.

    Raises:
        UserError: Another number of processes was started than `train.devices` says, or there is no such device.
    """

    def __init__(self, train: Train, device: str | torch.device | None = None) -> None:
        distributed.join()
        n_processes, n_local = distributed.world_size(), distributed.local_world_size()
        if train.devices not in ("auto", n_local):
            raise UserError(
                f"expected {train.devices} processes on this machine (train.devices), found {n_local}; start them with "
                f"torchrun --nproc-per-node {train.devices} -m msfnet train ..."
            )
        if train.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        chosen = choose_device(device)
        options: dict[str, Any] = {"devices": [chosen.index or 0] if chosen.type == "cuda" else 1}
        if n_processes > 1:
            # Running statistics are averaged at the end of each epoch; to share them at every step is what
            # sync_batchnorm is for.
            options = {
                "devices": n_local,
                "strategy": DDPStrategy(broadcast_buffers=False),
                "plugins": [TorchElasticEnvironment()],  # reads the variables that `distributed.join` has set
                "num_nodes": n_processes // n_local,
            }
        with _quiet():
            self.fabric = Fabric(accelerator=chosen.type, precision=train.precision, **options)
            self.fabric.launch()
        self.device: torch.device = self.fabric.device

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, compiled: bool) -> tuple[Forward, Any]:
        """Return the network and its optimizer as training calls them; `model` moves to the device.

        Args:
            model: The network.
            optimizer: The optimizer of its parameters.
            compiled: Whether to compile it with torch.compile.
        """
        called: Any = torch.compile(model, dynamic=False) if compiled else model
        with _quiet():
            return self.fabric.setup(called, optimizer)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the outputs of a network that was not set up, in the precision of the recipe."""
        with self.fabric.autocast():
            return model(self.fabric.strategy.precision.convert_input(x))

    def no_sync(self, forward: Any, *, active: bool) -> AbstractContextManager[Any]:
        """Keep the gradients of the block in this process, to be exchanged with those of a later micro-batch."""
        return self.fabric.no_backward_sync(forward) if active and distributed.world_size() > 1 else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Compute gradients, which are averaged over the processes."""
        self.fabric.backward(loss)

    def precision_state(self) -> dict[str, Any]:
        """Return the state of mixed precision: the loss scale of fp16."""
        return dict(self.fabric.strategy.precision.state_dict())

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Restore what `precision_state` returned."""
        self.fabric.strategy.precision.load_state_dict(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's own messages out of the log."""
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
