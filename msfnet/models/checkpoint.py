"""One file for a trained network: weights, the network's name and arguments, classes and preprocessing.

A safetensors file: tensors and one JSON text, so that loading one runs no code that it brings along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from msfnet.atomic_io import atomic_write
from msfnet.models.registry import create_model
from msfnet.run_folder import WEIGHTS as WEIGHTS
from msfnet.run_folder import weights_file
from msfnet.types import Preprocessing, UserError

FORMAT = "msfnet/1"
KEY = "msfnet"  # of the header among the metadata of a file


@dataclass(frozen=True)
class Checkpoint:
    """A network ready to recognize, with all that is needed to feed it and to read its answers."""

    model: nn.Module
    name: str
    kwargs: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: Mapping[str, Any]  # whatever the training run had to say: scores, seed, version


def save_weights(path: Path, weights: Checkpoint) -> None:
    """Write the file under a temporary name, then rename it."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.model.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={KEY: header_of(weights)}))


def header_of(weights: Checkpoint) -> str:
    """What a file says of itself, as JSON: all but the tensors. Every kind of file carries it, under `KEY`."""
    header = {
        "format": FORMAT,
        "model": {"name": weights.name, "kwargs": dict(weights.kwargs)},
        "classes": list(weights.classes),
        "preprocessing": weights.preprocessing.to_dict(),
        "notes": dict(weights.notes),
    }
    return json.dumps(header)


def parse_header(text: str, file: Path) -> dict[str, Any]:
    """The inverse of `header_of`. Raises UserError for what msfnet did not write, or a newer one did."""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise UserError(f"expected a file that msfnet wrote at {file}, found damage") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{file}: expected format {FORMAT}; update msfnet")
    return header


def with_model(header: dict[str, Any], model: nn.Module) -> Checkpoint:
    """What a header says, of a network that is made."""
    return Checkpoint(
        model.eval(),
        header["model"]["name"],
        header["model"]["kwargs"],
        tuple(header["classes"]),
        Preprocessing.from_dict(header["preprocessing"]),
        header.get("notes", {}),
    )


def load_weights(path: Path) -> Checkpoint:
    """Read a weights file, or the best one of a run folder, into a network in evaluation mode.

    Raises UserError for a path that is not there, a file that is no safetensors file, or one that is not ours.
    """
    file = weights_file(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"expected a .safetensors file, found something else or a damaged one at {file}") from error
    if KEY not in metadata:
        raise UserError(
            f"{file} was not written by msfnet: use it to start training from, with --set model.pretrained={file}"
        )
    return _build(parse_header(metadata[KEY], file), tensors, file)


def read_header(file: Path) -> dict[str, Any]:
    """What a weights file says of itself (model, classes, preprocessing, notes), without its tensors.

    Raises UserError for a file that msfnet did not write.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {})[KEY]
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"expected weights that msfnet wrote at {file}, found something else or damage") from error
    return parse_header(text, file)


def _build(header: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> Checkpoint:
    name = header["model"]["name"]
    model = create_model(name, len(header["classes"]), **header["model"]["kwargs"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{file}: its tensors do not fit the {name} that it names; the file is damaged") from error
    return with_model(header, model)
