"""Files of torch.export (.pt2), for PyTorch without this package and for compilers that read them.

The program maps float N C T H W of any N to float N K. The checkpoint's header is an extra file in the archive.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from msfnet.exporting.graph import exportable
from msfnet.exporting.libraries import converting
from msfnet.models.checkpoint import KEY, Checkpoint, header_of, parse_header, with_model
from msfnet.types import UserError

HEADER = f"{KEY}.json"


class InBfloat16(nn.Module):
    """A network whose weights and activations are bfloat16, between floats: N C T H W -> N K."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.bfloat16()

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(clips.bfloat16()).float()


def write(path: Path, weights: Checkpoint, precision: str, calibration: Tensor | None) -> None:
    """Write a network to an archive.

    Args:
        path: The file.
        weights: The network with its header.
        precision: fp32 or bf16.
        calibration: None; nothing is calibrated.

    Raises:
        UserError: torch.export cannot trace the network.
    """
    shape = weights.preprocessing.input_shape
    network = exportable(weights.model, shape, polyphase=False)
    if precision == "bf16":
        network = InBfloat16(network)
    with converting(weights.name, "torch.export"):
        program = torch.export.export(
            network, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # a stack trace holds paths of this machine
        torch.export.save(program, path, extra_files={HEADER: header_of(weights)})


def load(path: Path) -> Checkpoint:
    """Load an archive. PyTorch's reader can run code in the file: load only files that you trust.

    Raises:
        UserError: The file is no such archive, or msfnet did not write it.
    """
    extra = {HEADER: ""}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive")
        program = torch.export.load(path, extra_files=extra)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"expected a file of torch.export at {path}, found something else or a damaged one") from error
    if not extra[HEADER]:
        raise UserError(f"{path} was not written by msfnet: expected a file of msfnet export")
    return with_model(parse_header(extra[HEADER], path), TorchNetwork(program))


class TorchNetwork(nn.Module):
    """An exported program as a module: N C T H W -> N K, on the device it is moved to."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()

    def forward(self, clips: Tensor) -> Tensor:
        return self.program(clips)

    def train(self, mode: bool = True) -> TorchNetwork:
        """Stay in evaluation mode, in which the network was exported."""
        return self
