"""The programs that run a network: a maker for each takes a PyTorch network and gives back a function of clips.

Knows how a network gets into each runtime, and nothing of how it is timed. What may not be installed is imported where
it is used.
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

from msfnet.exporting.export import TARGETS
from msfnet.inference.fused import fuse
from msfnet.inference.network import load_network
from msfnet.models.checkpoint import Checkpoint
from msfnet.types import INPUT_CHANNELS, Preprocessing, resize_for

Shape = tuple[int, ...]  # N C T H W
Forward = Callable[[Tensor], Tensor]  # clips N C T H W -> logits N K
Maker = Callable[[nn.Module, Shape, str], Forward]  # a network in evaluation mode, its input's shape, a precision

CALIBRATION_CLIPS = 4


@dataclass(frozen=True)
class Runtime:
    """`needs` are modules that must be there, and `install` the command that brings them. `train`: it can learn."""

    make: Maker
    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    train: bool = False
    needs: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str | None:
        """What is not there, and how to get it."""
        absent = [name for name in self.needs if not find_spec(name)]
        return f"needs {', '.join(absent)}: {self.install}" if absent else None


@dataclass(frozen=True)
class _Compiler(Runtime):
    def missing(self) -> str | None:
        """On a CPU, torch.compile writes C++."""
        if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            return None
        return "needs a C++ compiler, as of Debian's package g++"


def in_precision(forward: Forward, precision: str) -> Forward:
    """PyTorch's way: bf16 by autocast."""

    @torch.inference_mode()
    def run(clips: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return forward(clips)

    return run


def eager(model: nn.Module, shape: Shape, precision: str) -> Forward:
    return in_precision(model, precision)


def fused(model: nn.Module, shape: Shape, precision: str) -> Forward:
    """Our inference copy: what `predict` runs."""
    return torch.inference_mode()(fuse(model, torch.bfloat16 if precision == "bf16" else torch.float32))


def compiled(model: nn.Module, shape: Shape, precision: str) -> Forward:
    """torch.compile for this shape alone. The first call compiles."""
    return in_precision(torch.compile(model, dynamic=False), precision)


def exported(to: str) -> Maker:
    """What `msfnet export` writes, run as `predict` runs it. 8 bits are calibrated on noise: to time, never to use."""

    def make(model: nn.Module, shape: Shape, precision: str) -> Forward:
        _, channels, frames, size_px, _ = shape
        kind = next(name for name, number in INPUT_CHANNELS.items() if number == channels)
        preprocessing = Preprocessing(
            frames, size_px, resize_for(size_px), (0.5,) * 3, (0.5,) * 3, "uniform", 1, input=kind
        )  # fmt: skip
        notes = {"export": {"to": to, "precision": precision}}
        weights = Checkpoint(model, "timed", {}, ("class",), preprocessing, notes)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(CALIBRATION_CLIPS, *shape[1:], generator=generator) if precision == "int8" else None
        target = TARGETS[to]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = Path(folder) / f"network{target.suffix}"
            target.write(file, weights, precision, noise)
            return torch.inference_mode()(load_network(file).model)

    return make


EXPORT = "pip install 'msfnet[export]'"
BOTH = ("fp32", "bf16")
ALL = (*BOTH, "int8")
RUNTIMES: Mapping[str, Runtime] = {
    "eager": Runtime(eager, BOTH, ("cpu", "cuda"), train=True),
    "fused": Runtime(fused, BOTH, ("cpu", "cuda")),
    "compile": _Compiler(compiled, BOTH, ("cpu", "cuda"), train=True),
    "onnx": Runtime(exported("onnx"), ("fp32", "int8"), needs=("onnx", "onnxscript", "onnxruntime"), install=EXPORT),
    "openvino": Runtime(exported("openvino"), ALL, needs=("openvino", "nncf"), install=EXPORT),
}


def training_step(model: nn.Module, precision: str, *, compile_model: bool) -> Callable[[Tensor], None]:
    """Forward, backward and a step of SGD with momentum, for clips N C T H W of any labels."""
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
