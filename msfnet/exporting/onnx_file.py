"""ONNX files: written by torch's exporter, run by ONNX Runtime on the CPU.

Input `clips`, float N C T H W of any N; output `logits`, N K. The checkpoint's header is in the model's metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msfnet.exporting.graph import exportable
from msfnet.exporting.int8 import quantized
from msfnet.exporting.libraries import converting, library
from msfnet.models.checkpoint import KEY, Checkpoint, header_of, parse_header, with_model
from msfnet.types import UserError

INPUT, OUTPUT = "clips", "logits"


def write(path: Path, weights: Checkpoint, precision: str, calibration: Tensor | None) -> None:
    """Write a network to a file.

    Args:
        path: The file.
        weights: The network with its header.
        precision: fp32 or int8.
        calibration: Clips N C T H W that int8 is calibrated on, else None.

    Raises:
        UserError: A library is not installed, or the network cannot be converted.
    """
    onnx, _, _ = (library(name) for name in ("onnx", "onnxscript", "onnxruntime"))  # before anything is computed
    model = _convert(weights, polyphase=precision != "int8")
    if calibration is not None:
        first = next(node.name for node in model.graph.node if node.op_type == "Conv")
        model = quantized(model, weights.name, calibration, INPUT, first)
    _strip(model)
    onnx.helper.set_model_props(model, {KEY: header_of(weights)})
    onnx.save(model, path)


def _convert(weights: Checkpoint, *, polyphase: bool) -> Any:
    shape = weights.preprocessing.input_shape
    network = exportable(weights.model, shape, polyphase=polyphase)
    with converting(weights.name, "torch.onnx"):
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(model: Any) -> None:
    """Remove where in the source code each operation came from, which has paths of this machine."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""


def load(path: Path) -> Checkpoint:
    """Load a file for ONNX Runtime, with as many threads as torch uses.

    Raises:
        UserError: The file is no ONNX model, msfnet did not write it, or ONNX Runtime is not installed.
    """
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no class
        raise UserError(f"expected an ONNX model at {path}, found something else or a damaged one") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if KEY not in metadata:
        raise UserError(f"{path} was not written by msfnet: expected an ONNX model of msfnet export")
    return with_model(parse_header(metadata[KEY], path), OnnxNetwork(session))


class OnnxNetwork(nn.Module):
    """An ONNX Runtime session as a module: N C T H W -> N K, on the CPU."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, clips: Tensor) -> Tensor:
        (logits,) = self.session.run([OUTPUT], {INPUT: clips.float().cpu().contiguous().numpy()})
        return torch.from_numpy(logits)
