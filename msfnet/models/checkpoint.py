"""A trained network in one file: weights, the network's name and arguments, classes and preprocessing.

The file is in the safetensors format, tensors and a JSON header, so that loading it runs no code from it. The header is
under the key `msfnet` of the file's metadata:

    format          "msfnet/1"; the number increases when older versions of msfnet cannot read the file
    model           name and kwargs of `create_model`
    classes         labels in the order of the logits
    preprocessing   what `msfnet.types.Preprocessing` holds
    license         license of the weights; empty: not stated
    trained_on      what `TrainedOn` holds, or null
    notes           what the training run adds: epoch, accuracy, version

`msfnet export` writes the same header into the files of other runtimes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from msfnet.atomic_io import atomic_write
from msfnet.models.registry import MODELS, create_model
from msfnet.run_folder import resolve_weights
from msfnet.types import Preprocessing, UserError

FORMAT = 1
KEY = "msfnet"  # key of the header in the metadata, and prefix of the format number
FIELDS = {"model", "classes", "preprocessing", "license", "trained_on", "notes"}


@dataclass(frozen=True)
class TrainedOn:
    """The data that weights were trained on, for those who use the weights without it.

    Training fills it: `TrainedOn(source=dataset.source, n_videos=<training videos>, n_classes=len(classes))`.
    """

    source: str  # what the data is, as in "UCF101, official split 1" or the folder's name
    n_videos: int  # training videos, without those held out
    n_classes: int


@dataclass(frozen=True)
class Checkpoint:
    """A network with all that is needed to feed it and to read its output.

    The network may be any nn.Module that maps float N C T H W to logits N K. To be loaded from a file, its name must be
    one of msfnet's or registered with `register_model`.

    Attributes:
        model: The network.
        name: Its name for `create_model`.
        kwargs: The keyword arguments it was created with.
        classes: Labels in the order of the logits.
        preprocessing: How its input is made from a video.
        notes: What the training run adds: epoch, accuracy, version.
        license: License of the weights, as in "CC BY 4.0"; empty where it is not stated.
        trained_on: The training data, or None where it is not known.
    """

    model: nn.Module
    name: str
    kwargs: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: Mapping[str, Any]
    license: str = ""
    trained_on: TrainedOn | None = None


def save_weights(path: Path, weights: Checkpoint) -> None:
    """Write a checkpoint as a file, under a temporary name that is renamed at the end.

    Raises:
        UserError: As `header_of`.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.model.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={KEY: header_of(weights)}))


def header_of(weights: Checkpoint) -> str:
    """Return the header of a checkpoint as JSON: all but the tensors.

    Raises:
        UserError: If an argument of the network is a function, which no file can hold.
    """
    header = {
        "format": f"{KEY}/{FORMAT}",
        "model": {"name": weights.name, "kwargs": dict(weights.kwargs)},
        "classes": list(weights.classes),
        "preprocessing": weights.preprocessing.to_dict(),
        "license": weights.license,
        "trained_on": asdict(weights.trained_on) if weights.trained_on else None,
        "notes": dict(weights.notes),
    }
    if functions := [key for key, value in weights.kwargs.items() if callable(value)]:
        raise UserError(
            f"{weights.name}: expected arguments that a file can hold, found a function as {functions[0]}; give it to "
            f"register_model(name, maker, {functions[0]}=...) and create the network by that name"
        )
    return json.dumps(header)


def parse_header(text: str, file: Path) -> dict[str, Any]:
    """Return the inverse of `header_of`.

    Args:
        text: The JSON text.
        file: Where it is from, for errors.

    Raises:
        UserError: If msfnet did not write it, or a newer version did.
    """
    try:
        header = json.loads(text)
        name, _, version = str(header["format"]).partition("/")
        newer = name == KEY and int(version) > FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"expected a file that msfnet wrote at {file}, found damage") from error
    if newer:
        raise UserError(f"{file} was written by a newer msfnet (format {version}); update msfnet")
    if name != KEY or not header.keys() >= FIELDS:
        raise UserError(f"expected a file that msfnet wrote at {file}, found damage")
    return dict(header)


def with_model(header: Mapping[str, Any], model: nn.Module) -> Checkpoint:
    """Return the checkpoint of a parsed header and its network, which is put in evaluation mode."""
    return Checkpoint(
        model.eval(),
        header["model"]["name"],
        header["model"]["kwargs"],
        tuple(header["classes"]),
        Preprocessing.from_dict(header["preprocessing"]),
        header["notes"],
        header["license"],
        TrainedOn(**header["trained_on"]) if header["trained_on"] else None,
    )


def load_weights(path: Path) -> Checkpoint:
    """Read a weights file into a network in evaluation mode.

    Args:
        path: A weights file, a run folder (its best weights), or the name of bundled weights.

    Raises:
        UserError: If there is no file, msfnet did not write it or a newer version did, or its network has to be
            registered first.
    """
    file = resolve_weights(path)
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
    """Return the header of a weights file, without its tensors.

    Raises:
        UserError: If msfnet did not write the file, or a newer version did.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {})[KEY]
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"expected weights that msfnet wrote at {file}, found something else or damage") from error
    return parse_header(text, file)


def _build(header: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> Checkpoint:
    """Return the network that a header names, with the tensors of its file."""
    name = header["model"]["name"]
    if name not in MODELS:
        raise UserError(f"{file}: this checkpoint needs register_model({name!r}) first")
    model = create_model(name, len(header["classes"]), **header["model"]["kwargs"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{file}: its tensors do not fit the {name} that it names; the file is damaged") from error
    return with_model(header, model)
