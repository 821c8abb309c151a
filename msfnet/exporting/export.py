"""`msfnet export`: write a network for another runtime, read it back, compare the two, and keep it if they agree."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from msfnet.data.annotations.readers import read_dataset
from msfnet.exporting import calibration, onnx_file, openvino_file, torch_file
from msfnet.exporting.load import load_network
from msfnet.exporting.parity import Parity, compare, require
from msfnet.models.checkpoint import Checkpoint, load_weights
from msfnet.types import UserError, nearest

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

BATCH = 5  # of the comparison: it leaves a rest, as data sets do


@dataclass(frozen=True)
class Target:
    """A kind of file: how its name ends, who writes it, and why it cannot be had in some precisions."""

    suffix: str
    write: Callable[[Path, Checkpoint, str, Tensor | None], None]
    refused: dict[str, str]


TARGETS = {
    "onnx": Target(
        ".onnx",
        onnx_file.write,
        {"bf16": "ONNX Runtime computes next to nothing in bf16 on a CPU; take openvino or torch, or fp32 or int8"},
    ),
    "openvino": Target(".xml", openvino_file.write, {}),
    "torch": Target(".pt2", torch_file.write, {"int8": "torch has no 3D convolution in int8; take openvino or onnx"}),
}
PRECISIONS = ("fp32", "bf16", "int8")


def export(
    source: Path, to: str, precision: str, out: Path, *, data: Path | None, annotations: Path | None, split: int
) -> Parity:
    """Write `out` from weights or a run folder, and return how it compares on clips of the training videos of `data`.

    Raises UserError for a combination that cannot be, int8 without data, a library that is missing, and a file that
    does not say what the network says; then nothing is left behind.
    """
    target = _target(to, precision, out)
    if precision == "int8" and data is None:
        raise UserError("int8 is calibrated on videos: expected --data DATA, found none")
    weights = load_weights(source)
    weights = replace(weights, notes={**weights.notes, "export": {"to": to, "precision": precision}})
    if data is None:
        log.info("no --data: compared on noise, which says little of real videos")
        compared, to_calibrate_on, kind = calibration.noise(weights.preprocessing), None, "clips of noise"
    else:
        items = calibration.training_items(
            read_dataset(data, annotations, split), source if source.is_dir() else source.parent
        )
        to_compare, to_calibrate = calibration.draw(items, calibrate=precision == "int8")
        log.info(f"training videos: {len(to_compare)} to compare on, {len(to_calibrate)} to calibrate on")
        compared, kind = calibration.read(to_compare, weights.preprocessing), "clips of training videos"
        to_calibrate_on = calibration.read(to_calibrate, weights.preprocessing) if to_calibrate else None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
        written = Path(folder) / out.name
        target.write(written, weights, precision, to_calibrate_on)
        exported = load_network(written).model
        parity = compare(_logits(weights.model, compared), _logits(exported, compared), kind)
        require(parity, precision)
        del exported  # or Windows would not let go of its files
        _move(written, out)
    return parity


def _target(to: str, precision: str, out: Path) -> Target:
    if to not in TARGETS:
        raise UserError(f"expected --to onnx, openvino or torch, found {to!r}; {nearest(to, TARGETS)}")
    if precision not in PRECISIONS:
        raise UserError(f"expected --precision fp32, bf16 or int8, found {precision!r}")
    target = TARGETS[to]
    if precision in target.refused:
        raise UserError(f"--to {to} cannot be in {precision}: {target.refused[precision]}")
    if out.suffix.lower() != target.suffix:
        raise UserError(f"expected --out PATH{target.suffix} with --to {to}, found {out}")
    return target


@torch.inference_mode()
def _logits(network: nn.Module, compared: Tensor) -> Tensor:
    return torch.cat([network(batch).float().cpu() for batch in compared.split(BATCH)])


def _move(written: Path, out: Path) -> None:
    """Put what was written in its place, the named file last: where that is, all is."""
    out.unlink(missing_ok=True)
    for part in sorted(written.parent.iterdir(), key=lambda part: part == written):
        part.replace(out.with_name(part.name))
