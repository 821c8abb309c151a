"""ONNX files: written by torch's exporter, run by ONNX Runtime on the CPU.

Input `clips`, float N C T H W of any N; output `logits`, N K. The header lies in the model's metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msfnet.exporting.calibration import quantized
from msfnet.exporting.graph import exportable
from msfnet.exporting.libraries import library, quietly
from msfnet.models.checkpoint import KEY, Checkpoint, header_of, parse_header, with_model
from msfnet.types import UserError

INPUT, OUTPUT = "clips", "logits"


def write(path: Path, weights: Checkpoint, precision: str, calibration: Tensor | None) -> None:
    """Write the file. int8 needs clips to calibrate on: N C T H W."""
    onnx, _, _ = (library(name) for name in ("onnx", "onnxscript", "onnxruntime"))  # missing ones are told at once
    model = _convert(weights, interleaved=precision != "int8")
    if calibration is not None:
        first = next(node.name for node in model.graph.node if node.op_type == "Conv")
        model = quantized(model, calibration, INPUT, first)
    _strip(model)
    onnx.helper.set_model_props(model, {KEY: header_of(weights)})
    onnx.save(model, path)


def _convert(weights: Checkpoint, *, interleaved: bool) -> Any:
    """The network as an ONNX model."""
    shape = weights.preprocessing.input_shape
    network = exportable(weights.model, shape, interleaved=interleaved)
    with quietly():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model_proto


def _strip(model: Any) -> None:
    """Take out where in our code each operation came from: paths of this machine are nobody's business."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""


def load(path: Path) -> Checkpoint:
    """Raises UserError for a file that is no ONNX model, or none of ours."""
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
