"""One file for a trained network: weights, the network's name and arguments, classes and preprocessing.

A safetensors file: tensors and one JSON text, so that loading one runs no code that it brings along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from msfnet.files import replacing
from msfnet.models.registry import create_model
from msfnet.types import Preprocessing, UserError

FORMAT = "msfnet/1"
WEIGHTS = "weights.safetensors"

# torchvision's published weights (Kinetics-400), fetched only when a recipe names them.
KINETICS400_URLS = {
    "r3d18": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
    "r2plus1d18": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
}


@dataclass(frozen=True)
class Weights:
    """A network ready to recognise, with all that is needed to feed it and to read its answers."""

    model: nn.Module
    name: str
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: Mapping[str, Any]  # whatever the training run had to say: scores, seed, version


def save_weights(path: Path, weights: Weights) -> None:
    """Write the file under a temporary name, then rename it."""
    header = {
        "format": FORMAT,
        "model": {"name": weights.name, "arguments": dict(weights.arguments)},
        "classes": list(weights.classes),
        "preprocessing": weights.preprocessing.to_dict(),
        "notes": dict(weights.notes),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.model.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"msfnet": json.dumps(header)}))


def load_weights(path: Path) -> Weights:
    """Read a weights file, or the best one of a run folder, into a network in evaluation mode.

    Raises UserError for a path that is not there, a file that is no safetensors file, or one that is not ours.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"expected a .safetensors file or a run folder, found no file at {file}")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"expected a .safetensors file, found something else or a damaged one at {file}") from error
    if "msfnet" not in metadata:
        raise UserError(
            f"{file} was not written by msfnet: use it to start training from, with --set model.init={file}"
        )
    return _build(json.loads(metadata["msfnet"]), tensors, file)


def _build(header: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> Weights:
    if header.get("format") != FORMAT:
        raise UserError(f"{file}: expected format {FORMAT}, found {header.get('format')}; update msfnet")
    classes = tuple(header["classes"])
    name, arguments = header["model"]["name"], header["model"]["arguments"]
    model = create_model(name, len(classes), **arguments)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{file}: its tensors do not fit the {name} that it names; the file is damaged") from error
    preprocessing = Preprocessing.from_dict(header["preprocessing"])
    return Weights(model.eval(), name, arguments, classes, preprocessing, header.get("notes", {}))


def init_weights(model: nn.Module, source: str, name: str) -> list[str]:
    """Copy a state dict into a fresh network key for key; returns the keys left fresh, those of the last layer.

    `source` is a file (a weights file of ours, any safetensors file, or a PyTorch state dict) or "kinetics400",
    torchvision's published weights for `name`, which are downloaded. Only the last layer may differ in its number
    of classes.

    Raises UserError naming every key that does not fit.
    """
    state = _read_state(source, name)
    own = model.state_dict()
    head = {key for key in list(own)[-2:] if key in state and state[key].shape != own[key].shape}
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())
    unlike = sorted(k for k in own.keys() & state.keys() - head if own[k].shape != state[k].shape)
    if missing or unknown or unlike:
        counts = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", unlike))
            if keys
        ]
        raise UserError(f"model.init={source} does not fit {name}: keys {', '.join(counts)}")
    model.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    return sorted(head)


def _read_state(source: str, name: str) -> dict[str, Tensor]:
    if source == "kinetics400":
        if name not in KINETICS400_URLS:
            raise UserError(f"model.init=kinetics400 is there for {', '.join(KINETICS400_URLS)}, found {name}")
        try:
            state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                KINETICS400_URLS[name], map_location="cpu", weights_only=True, check_hash=True
            )
        except OSError as error:
            raise UserError(
                f"model.init=kinetics400: cannot download {KINETICS400_URLS[name]} ({error}); "
                "download it elsewhere and give the file's path"
            ) from error
        return state
    path = Path(source) / WEIGHTS if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise UserError(f"model.init: expected a file, a run folder or kinetics400, found nothing at {source}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged file makes it raise
        raise UserError(f"model.init: {path} is not a state dict that can be read safely") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"model.init: expected a dict of tensors in {path}, found something else")
    return loaded
