"""The runtimes that execute a network: each turns a PyTorch network into a function of clips.

It measures nothing. Optional libraries are imported where they are used.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.exporting.export import PRECISIONS, TARGETS
from msfnet.inference.fused import fuse
from msfnet.inference.network import load_network
from msfnet.models.checkpoint import Checkpoint
from msfnet.types import INPUT_CHANNELS, Preprocessing, resize_for

Shape = tuple[int, ...]  # N C T H W
Forward = Callable[[Tensor], Tensor]  # clips N C T H W -> logits N K
Maker = Callable[[nn.Module, Shape, str], Forward]  # a network in eval mode, the shape of its input, a precision

CALIBRATION_CLIPS = 4


@dataclass(frozen=True)
class Runtime:
    """A runtime and what it can run.

    Attributes:
        make: Turns a network into a function of clips.
        precisions: Precisions that it supports.
        devices: Types of devices that it supports.
        train: Whether it can train.
        needs: Modules that it imports.
        install: Command that installs them.
    """

    make: Maker
    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    train: bool = False
    needs: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str | None:
        """Return what is not installed and how to install it, or None."""
        absent = [name for name in self.needs if not find_spec(name)]
        return f"needs {', '.join(absent)}: {self.install}" if absent else None


@dataclass(frozen=True)
class _Compiler(Runtime):
    def missing(self) -> str | None:
        """Return what is missing; on a CPU, torch.compile needs a C++ compiler."""
        if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            return None
        return "needs a C++ compiler; install g++ or clang"


def with_autocast(forward: Forward, precision: str) -> Forward:
    """Return a function that computes in fp32, or in bf16 by PyTorch's autocast.

    Args:
        forward: A network.
        precision: `fp32` or `bf16`.
    """

    @torch.inference_mode()
    def run(clips: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return forward(clips)

    return run


def eager(model: nn.Module, shape: Shape, precision: str) -> Forward:
    """Run the network as it is in PyTorch."""
    return with_autocast(model, precision)


def fused(model: nn.Module, shape: Shape, precision: str) -> Forward:
    """Run the fused network in PyTorch, as `predict` does."""
    return torch.inference_mode()(fuse(model, torch.bfloat16 if precision == "bf16" else torch.float32))


def compiled(model: nn.Module, shape: Shape, precision: str) -> Forward:
    """Run the network with torch.compile, for inputs of one shape. The first call compiles."""
    return with_autocast(torch.compile(model, dynamic=False), precision)


def exported(to: str) -> Maker:
    """Return the maker of an export target: the file that `msfnet export` writes, run as `predict` runs it.

    int8 is calibrated on noise, so its latency is meaningful but its predictions are not.

    Args:
        to: `onnx` or `openvino`.
    """

    def make(model: nn.Module, shape: Shape, precision: str) -> Forward:
        _, channels, frames, size_px, _ = shape
        kind = next(name for name, number in INPUT_CHANNELS.items() if number == channels)
        preprocessing = Preprocessing(
            frames, size_px, resize_for(size_px), (0.5,) * 3, (0.5,) * 3, "uniform", 1, input=kind
        )  # fmt: skip
        notes = {"export": {"to": to, "precision": precision}}
        checkpoint = Checkpoint(model, "timed", {}, ("class",), preprocessing, notes)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(CALIBRATION_CLIPS, *shape[1:], generator=generator) if precision == "int8" else None
        target = TARGETS[to]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = Path(folder) / f"network{target.suffix}"
            target.write(file, checkpoint, precision, noise)
            return torch.inference_mode()(load_network(file).model)

    return make


EXPORT = "pip install 'msfnet[export]'"
FLOAT = ("fp32", "bf16")
RUNTIMES: Mapping[str, Runtime] = {
    "eager": Runtime(eager, FLOAT, ("cpu", "cuda"), train=True),
    "fused": Runtime(fused, FLOAT, ("cpu", "cuda")),
    "compile": _Compiler(compiled, FLOAT, ("cpu", "cuda"), train=True),
    "onnx": Runtime(exported("onnx"), ("fp32", "int8"), needs=("onnx", "onnxscript", "onnxruntime"), install=EXPORT),
    "openvino": Runtime(exported("openvino"), PRECISIONS, needs=("openvino", "nncf"), install=EXPORT),
}


def training_step(model: nn.Module, precision: str, *, compile_model: bool) -> Callable[[Tensor], None]:
    """Return a function of clips N C T H W that runs a forward pass, a backward pass and a step of SGD with momentum.

    Args:
        model: The network, which is put into training mode.
        precision: `fp32`, or `bf16` by autocast.
        compile_model: Use torch.compile.
    """
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model, dynamic=False) if compile_model else model

    def step(clips: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(clips)
            loss = F.cross_entropy(logits, torch.zeros(len(clips), dtype=torch.int64, device=clips.device))
        loss.backward()
        optimizer.step()

    return step
