"""OpenVINO files: an .xml with its .bin beside it, quantized by NNCF, run on the CPU.

Input `clips`, float N C T H W of any N; output `logits`, N K. The checkpoint's header is in the model's rt_info. The
format does not hold the precision that a file is made for: `load` reads it from the header and requests it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msfnet.exporting.graph import exportable
from msfnet.exporting.int8 import quantized
from msfnet.exporting.libraries import converting, library
from msfnet.models.checkpoint import KEY, Checkpoint, header_of, parse_header, with_model
from msfnet.types import UserError

log = logging.getLogger(__name__)

INPUT, OUTPUT = "clips", "logits"
MAX_PROGRAMS = 4  # compiled, each for one number of clips

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # the precision of everything that is not in 8 bits


def write(path: Path, weights: Checkpoint, precision: str, calibration: Tensor | None) -> None:
    """Write a network to an .xml file and the .bin beside it.

    Args:
        path: The .xml file.
        weights: The network with its header.
        precision: fp32, bf16 or int8.
        calibration: Clips N C T H W that int8 is calibrated on, else None.

    Raises:
        UserError: A library is not installed, the network cannot be converted, or bf16 is requested on a processor
            without it, which could not check the file.
    """
    openvino = library("openvino")
    if precision == "bf16" and not _computes_bf16(openvino.Core()):
        raise UserError(
            "expected a processor that computes in bf16 (avx512_bf16 or AMX), found one without; use fp32 or int8"
        )
    if precision == "int8":
        library("nncf")
    model = _convert(openvino, weights, polyphase=precision != "int8")
    if calibration is not None:
        first = next(op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution")
        model = quantized(model, weights.name, calibration, INPUT, first.get_friendly_name())
    model.set_rt_info(header_of(weights), KEY)
    openvino.save_model(model, path, compress_to_fp16=False)


def _convert(openvino: Any, weights: Checkpoint, *, polyphase: bool) -> Any:
    shape = weights.preprocessing.input_shape
    network = exportable(weights.model, shape, polyphase=polyphase)
    with converting(weights.name, "OpenVINO"):  # tracing warns that shapes become constants: they are
        model = openvino.convert_model(network, example_input=torch.zeros(2, *shape))
    model.reshape([-1, *shape])
    model.input(0).set_names({INPUT})
    model.output(0).set_names({OUTPUT})
    return model


def load(path: Path) -> Checkpoint:
    """Load a file for OpenVINO, with as many threads as torch uses.

    A file in bf16 runs in fp32, with a warning, on a processor without bf16: slower, and no less exact.

    Raises:
        UserError: The file is no OpenVINO model, msfnet did not write it, its .bin is missing, or OpenVINO is not
            installed.
    """
    openvino = library("openvino")
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # with it, the file cannot be replaced on Windows
    if not path.with_suffix(".bin").is_file():
        raise UserError(f"expected {path.with_suffix('.bin').name} beside {path}, found none: copy both")
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise UserError(f"expected an OpenVINO model at {path}, found something else or a damaged one") from error
    if not model.has_rt_info(KEY):
        raise UserError(f"{path} was not written by msfnet: expected an OpenVINO model of msfnet export")
    header = parse_header(model.get_rt_info(KEY).astype(str), path)
    precision = header["notes"]["export"]["precision"]
    hint = HINTS[precision]
    if hint == "bf16" and not _computes_bf16(core):
        hint = "f32"
        if precision == "bf16":
            log.warning(f"this processor has no bf16: {path} runs in fp32")
    return with_model(header, OpenVINONetwork(core, model, hint))


def _computes_bf16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINONetwork(nn.Module):
    """An OpenVINO model as a module: N C T H W -> N K, on the CPU.

    It is compiled for each number of clips that occurs, because programs for any number of clips are slower.
    """

    def __init__(self, core: Any, model: Any, hint: str) -> None:
        super().__init__()
        self.core, self.model = core, model
        self.settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # it would bind several of our processes to the same cores
        }
        self.programs: dict[int, Any] = {}

    def forward(self, clips: Tensor) -> Tensor:
        outputs = self._program(len(clips))(clips.float().cpu().contiguous().numpy())
        return torch.from_numpy(outputs[0].copy())

    def _program(self, n_clips: int) -> Any:
        if n_clips not in self.programs:
            if len(self.programs) == MAX_PROGRAMS:
                self.programs.pop(next(iter(self.programs)))
            model = self.model.clone()
            model.reshape([n_clips, *(size.get_length() for size in list(model.input(0).partial_shape)[1:])])
            self.programs[n_clips] = self.core.compile_model(model, "CPU", self.settings)
        return self.programs[n_clips]
