"""Pretrained weights: where they are read from, and which of their keys fit a network.

Nothing is left out silently: `LoadReport` says what was copied, adapted, left at its random initialization and not
used, and everything else is an error.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from msfnet.models.c3d import C3D
from msfnet.models.resnet3d import ResNet3D
from msfnet.models.weight_transfer import State, Transferred, accepts_r3d, is_r3d, r3d_shapes, transfer_r3d
from msfnet.run_folder import resolve_weights
from msfnet.types import UserError

log = logging.getLogger(__name__)

# torchvision's published weights (Kinetics-400), downloaded only when they are asked for: network -> file.
R3D18_URL = "https://download.pytorch.org/models/r3d_18-b3b3357e.pth"
KINETICS400_URLS = {
    "r3d_18": R3D18_URL,
    "msf_r3d_18": R3D18_URL,
    "r2plus1d_18": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
}
COUNTER = "num_batches_tracked"  # a buffer of batch norms that nothing reads


@dataclass(frozen=True)
class LoadReport:
    """What happened to each key of the network, and which keys of the file it does not use."""

    copied: tuple[str, ...]
    adapted: tuple[str, ...]  # sliced from an R3D's, rescaled or computed, see `models.weight_transfer`
    randomly_initialized: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return one line for each group that has keys: how many, and in which parts of the network."""
        groups = {
            "copied": self.copied,
            "adapted": self.adapted,
            "randomly initialized": self.randomly_initialized,
            "unused": self.unused,
        }
        return [f"{what}: {len(keys)} keys ({_parts(keys)})" for what, keys in groups.items() if keys]


def load_pretrained(model: nn.Module, source: str, name: str) -> LoadReport:
    """Load pretrained weights into a network.

    They are the weights of the same network, or of an R3D for an MSF-R3D, whose convolutions then start from their
    parts of the dense ones (`models.weight_transfer`). The last layer may have another number of classes, and the
    attention may be another one: both then stay randomly initialized.

    Args:
        model: The network, which is changed.
        source: Bundled weights by name, a weights file of msfnet or any other safetensors file, a run folder, a PyTorch
            state dict, or "kinetics400", torchvision's published weights for `name`, which are downloaded.
        name: Name of the network.

    Returns:
        What happened to every key.

    Raises:
        UserError: If there are no weights at `source`, or naming the keys that do not fit, with both shapes.
    """
    return load_state(model, read_state(source, name), source, name)


def load_state(model: nn.Module, found: Mapping[str, Tensor], source: str | None, name: str) -> LoadReport:
    """Load the weights `found`, which were read from `source`; errors name it."""
    state = {key: value.float() for key, value in found.items() if not key.endswith(COUNTER)}
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(COUNTER)}
    from_r3d = accepts_r3d(model) and is_r3d(state)
    optional = _optional(model, own.keys() | state.keys())
    unfit = _unfit(optional, own, state)
    needed = r3d_shapes(model) if from_r3d else {key: tuple(own[key].shape) for key in own if key not in unfit}
    _refuse_others(f"pretrained={source} does not fit {name}", needed, state, optional if from_r3d else unfit)
    if from_r3d:
        kept = {key: state[key] for key in own if key in optional - unfit}
        result = transfer_r3d(model, {key: state[key] for key in needed}) | Transferred(kept)
    else:
        result = Transferred({key: state[key] for key in needed})
    counters = {key: found[key] for key in model.state_dict() if key.endswith(COUNTER) and key in found}
    model.load_state_dict(counters | result.copied | result.adapted, strict=False)
    rest = (key for key in own if key not in result.copied and key not in result.adapted)
    return LoadReport(tuple(result.copied), tuple(result.adapted), tuple(rest), tuple(sorted(unfit & state.keys())))


def num_classes_of(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """Return the number of classes of weights: the rows of the last layer of `model`, or None if they lack it."""
    classifier, _ = _optional_parts(model)
    weight = state.get(f"{classifier}.weight")
    return None if weight is None else len(weight)


def _optional_parts(model: nn.Module) -> tuple[str, tuple[str, ...]]:
    """Return the names of the last layer and of the attention modules.

    Of a registered network the last layer is its last nn.Linear, and nothing is known of attention.
    """
    if isinstance(model, ResNet3D | C3D):
        return model.classifier_name, model.attention_names
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else "", ()


def _optional(model: nn.Module, keys: Set[str]) -> set[str]:
    """Return the keys that may differ between networks: those of the last layer and of the attention modules."""
    classifier, attention = _optional_parts(model)
    prefixes = tuple(f"{name}." for name in (classifier, *attention))
    return {key for key in keys if key.startswith(prefixes)}


def _unfit(optional: set[str], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    """Return the optional keys of every layer that differs between the network and `state`."""
    different = {key for key in optional if key not in own or key not in state or own[key].shape != state[key].shape}
    layers = {key.partition(".")[0] for key in different}
    return {key for key in optional if key.partition(".")[0] in layers}


def _refuse_others(
    complaint: str, needed: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], optional: set[str]
) -> None:
    """Raise UserError unless `state` has what is needed and nothing else but what is optional."""
    found = {key: tuple(value.shape) for key, value in state.items()}
    first = next(iter(needed))
    if first in found and found[first][1:] == needed[first][1:] and found[first] != needed[first]:
        raise UserError(
            f"{complaint}: it has another width, its {first} has {found[first][0]} channels, expected "
            f"{needed[first][0]}; change width_mult"
        )
    different = sorted(key for key in needed.keys() & found.keys() if needed[key] != found[key])
    shapes = f", {found[different[0]]} instead of {needed[different[0]]}" if different else ""
    groups = {
        "missing": (sorted(needed.keys() - found.keys()), ""),
        "unknown": (sorted(found.keys() - needed.keys() - optional), ""),
        "of another shape": (different, shapes),
    }
    counts = [f"{len(keys)} {what} (first: {keys[0]}{more})" for what, (keys, more) in groups.items() if keys]
    if counts:
        raise UserError(f"{complaint}: keys {', '.join(counts)}")


def _parts(keys: Iterable[str]) -> str:
    """Return how many of the keys are in each part of the network, in their order."""
    counts = Counter(key.partition(".")[0] for key in keys)
    return ", ".join(f"{part} {n}" for part, n in counts.items())


def read_state(source: str, name: str) -> State:
    """Return the tensors of pretrained weights.

    Args:
        source: As for `load_pretrained`.
        name: Name of the network, by which torchvision's weights are chosen.

    Raises:
        UserError: If there is nothing to read, or nothing that can be read without running code from the file.
    """
    if source == "kinetics400":
        return _published(name)
    try:
        path = resolve_weights(Path(source))
    except UserError as error:
        raise UserError(
            f"pretrained: expected bundled weights by name, a weights file, a run folder, a state dict or kinetics400, "
            f"found nothing at {source}"
        ) from error
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many types for a damaged file
        raise UserError(f"pretrained: {path} is not a state dict that can be read safely") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"pretrained: expected a dict of tensors in {path}, found something else")
    return loaded


def published_url(name: str) -> str:
    """Return where torchvision publishes weights that a network can start from.

    Raises:
        UserError: If there are none.
    """
    for network, url in KINETICS400_URLS.items():
        if name == network or name.startswith(f"{network}_"):
            return url
    raise UserError(f"pretrained=kinetics400 exists for {', '.join(KINETICS400_URLS)}, found {name}")


def _published(name: str) -> State:
    url = published_url(name)
    log.info("pretrained weights of kinetics400: %s, or its copy in %s", url, torch.hub.get_dir())
    try:
        with redirect_stdout(sys.stderr):  # torch.hub prints there, but standard output is for results
            state: State = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", weights_only=True, check_hash=True, progress=False
            )
    except OSError as error:
        raise UserError(
            f"pretrained=kinetics400: cannot download {url} ({error}); download it elsewhere and give the file's path"
        ) from error
    return state
