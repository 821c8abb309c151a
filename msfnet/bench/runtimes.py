"""The programs that run a network: a maker for each takes a PyTorch network and gives back a function of clips.

Knows how a network gets into each runtime, and nothing of how it is timed. What may not be installed is imported where
it is used.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.models.fused import fuse

Shape = tuple[int, ...]  # N C T H W
Forward = Callable[[Tensor], Tensor]  # clips N C T H W -> logits N K
Maker = Callable[[nn.Module, Shape, str], Forward]  # a network in evaluation mode, its input's shape, a precision

CALIBRATION_BATCHES = 4  # of noise: enough to time an int8 network, never to use one


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


def onnx(model: nn.Module, shape: Shape, precision: str) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = _write_onnx(model, shape, Path(folder))
        if precision == "int8":
            file = _quantise_onnx(file, shape)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


def _write_onnx(model: nn.Module, shape: Shape, folder: Path) -> Path:
    file = folder / "network.onnx"
    torch.onnx.export(
        model, (torch.zeros(shape),), str(file), dynamo=True, input_names=["clips"], verbose=False, external_data=False
    )
    return file


def _quantise_onnx(file: Path, shape: Shape) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = noise(shape)

        def get_next(self) -> dict[str, Any] | None:
            clips = next(self.batches, None)
            return None if clips is None else {"clips": clips.numpy()}

    quantised = file.with_name("int8.onnx")
    quantize_static(file, quantised, Noise())
    return quantised


def openvino(model: nn.Module, shape: Shape, precision: str) -> Forward:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report to its makers
    import openvino as ov

    network = ov.convert_model(model, example_input=torch.zeros(shape), input=[list(shape)])
    if precision == "int8":
        import nncf

        network = nncf.quantize(network, nncf.Dataset([clips.numpy() for clips in noise(shape)]))
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    compiled_network = ov.Core().compile_model(network, "CPU", settings)  # takes its working memory at the first call
    return lambda clips: torch.from_numpy(compiled_network([clips.numpy()], share_inputs=True)[0])


def noise(shape: Shape) -> Iterator[Tensor]:
    """Batches to calibrate by."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator) for _ in range(CALIBRATION_BATCHES))


EXPORT = "pip install 'msfnet[export]'"
BOTH = ("fp32", "bf16")
ALL = (*BOTH, "int8")
RUNTIMES: Mapping[str, Runtime] = {
    "eager": Runtime(eager, BOTH, ("cpu", "cuda"), train=True),
    "fused": Runtime(fused, BOTH, ("cpu", "cuda")),
    "compile": _Compiler(compiled, BOTH, ("cpu", "cuda"), train=True),
    "onnx": Runtime(onnx, ("fp32", "int8"), needs=("onnx", "onnxscript", "onnxruntime"), install=EXPORT),
    "openvino": Runtime(openvino, ALL, needs=("openvino", "nncf"), install=EXPORT),
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
