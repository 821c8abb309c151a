"""Export: write a network for another runtime, load the file again, compare the two, and keep it if they agree."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.dataset import Dataset
from msfnet.exporting import calibration, onnx_file, openvino_file, torch_file
from msfnet.exporting.load import load_exported
from msfnet.exporting.parity import Parity, compare, require
from msfnet.models.checkpoint import Checkpoint, load_weights
from msfnet.run_folder import Run, resolve_weights
from msfnet.types import UserError, nearest

log = logging.getLogger(__name__)

BATCH = 5  # clips of a compared batch; the last batch is smaller, as with datasets


@dataclass(frozen=True)
class Target:
    """An export format: the suffix of its files, its writer, and the reason for each precision it does not support."""

    suffix: str
    write: Callable[[Path, Checkpoint, str, Tensor | None], None]
    refused: dict[str, str]


TARGETS = {
    "onnx": Target(
        ".onnx",
        onnx_file.write,
        {"bf16": "ONNX Runtime has almost no bf16 operations on a CPU; use openvino or torch, or fp32 or int8"},
    ),
    "openvino": Target(".xml", openvino_file.write, {}),
    "torch": Target(".pt2", torch_file.write, {"int8": "torch has no 3D convolution in int8; use openvino or onnx"}),
}
PRECISIONS = ("fp32", "bf16", "int8")


def export(
    weights: str | Path | Run | Checkpoint,
    to: str,
    out: str | Path,
    precision: str = "fp32",
    data: str | Path | Dataset | None = None,
    annotations: Path | None = None,
    split: int = 1,
) -> Parity:
    """Write a network for another runtime, with its classes and preprocessing.

    Args:
        weights: A .safetensors file, a run or its folder, the name of bundled weights, or a `Checkpoint`, whose network
            may be any module N C T H W -> N K.
        to: onnx, openvino or torch.
        out: The file to write: .onnx, .xml (with a .bin beside it) or .pt2.
        precision: fp32, bf16 or int8; int8 is calibrated on clips of `data`.
        data: Videos, of which the training videos are used; None compares the two networks on noise.
        annotations: The folder of the official annotations of `data`.
        split: The number of the official split, where there are several.

    Returns:
        How the file compares with the network.

    Raises:
        UserError: The combination is not supported, a library is not installed, the network cannot be converted, or the
            file's outputs differ from the network's. Nothing is written then.
    """
    out = Path(out)
    target = _target(to, precision, out)
    if precision == "int8" and data is None:
        raise UserError("int8 is calibrated on videos: expected data (--data DATA), found none")
    folder = None
    if isinstance(weights, Checkpoint):
        weights = replace(weights, model=copy.deepcopy(weights.model).cpu().eval())
    else:
        file = resolve_weights(weights.folder if isinstance(weights, Run) else Path(weights))
        weights, folder = load_weights(file), file.parent
    weights = replace(weights, notes={**weights.notes, "export": {"to": to, "precision": precision}})
    compared, calibrated, kind = calibration.noise(weights.preprocessing), None, "clips of noise"
    if data is None:
        log.warning("no data: the file is compared on noise, which says little about real videos")
    else:
        dataset = read_dataset(data, annotations, split) if isinstance(data, str | Path) else data
        items = calibration.training_items(dataset, folder)
        to_compare, to_calibrate = calibration.draw(items, calibrate=precision == "int8")
        log.info(f"training videos: {len(to_compare)} to compare on, {len(to_calibrate)} to calibrate on")
        compared, kind = calibration.read(dataset, to_compare, weights.preprocessing), "clips of training videos"
        calibrated = calibration.read(dataset, to_calibrate, weights.preprocessing) if to_calibrate else None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        written = Path(part) / out.name
        target.write(written, weights, precision, calibrated)
        exported = load_exported(written).model
        parity = compare(_logits(weights.model, compared), _logits(exported, compared), kind)
        require(parity, precision)
        del exported  # Windows does not move a file that is open
        _move(written, out)
    return parity


def _target(to: str, precision: str, out: Path) -> Target:
    if to not in TARGETS:
        raise UserError(f"expected an export to onnx, openvino or torch, found {to!r}; {nearest(to, TARGETS)}")
    if precision not in PRECISIONS:
        raise UserError(f"expected a precision of fp32, bf16 or int8, found {precision!r}")
    target = TARGETS[to]
    if precision in target.refused:
        raise UserError(f"no export to {to} in {precision}: {target.refused[precision]}")
    if out.suffix.lower() != target.suffix:
        raise UserError(f"expected a file {target.suffix} to write for {to}, found {out}")
    return target


@torch.inference_mode()
def _logits(network: nn.Module, compared: Tensor) -> Tensor:
    """Return the logits of clips N C T H W: N K."""
    return torch.cat([network(batch).float() for batch in compared.split(BATCH)])


def _move(written: Path, out: Path) -> None:
    """Move the written files into place, the named file last: if it exists, all of them do."""
    out.unlink(missing_ok=True)
    for part in sorted(written.parent.iterdir(), key=lambda part: part == written):
        part.replace(out.with_name(part.name))
