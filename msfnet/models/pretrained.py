"""Where a network starts from when it does not start from scratch: files of weights, and which of their keys fit.

Nothing is left out silently: what was copied, sliced, left fresh and not used is told, and all else is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from msfnet.models.checkpoint import WEIGHTS
from msfnet.models.weight_transfer import State, Taken, dense_shapes, is_dense, takes_dense, transplant
from msfnet.models.zoo import GATES
from msfnet.types import UserError

# torchvision's published weights (Kinetics-400), fetched only when a recipe names them: backbone -> file.
R3D18_URL = "https://download.pytorch.org/models/r3d_18-b3b3357e.pth"
KINETICS400_URLS = {
    "r3d_18": R3D18_URL,
    "msf_r3d_18": R3D18_URL,
    "r2plus1d_18": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
}
COUNTER = "num_batches_tracked"  # of norms; nothing reads it
ATTENTIONS = (*GATES, nn.Identity)  # what may stand where attention does


@dataclass(frozen=True)
class WarmStart:
    """What became of each key: of the network's own, and of those in the file that it has no use for."""

    copied: tuple[str, ...]
    fitted: tuple[str, ...]  # sliced, rescaled or worked out
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line for each group that has keys: how many, and in which parts of the network."""
        groups = {
            "copied": self.copied,
            "sliced and rescaled": self.fitted,
            "left fresh": self.fresh,
            "not used": self.unused,
        }
        return [f"{what}: {len(keys)} keys ({_parts(keys)})" for what, keys in groups.items() if keys]


def load_pretrained(model: nn.Module, source: str, name: str) -> WarmStart:
    """Start a fresh network from trained weights; returns what became of every key.

    `source` is a file (a weights file of ours, any safetensors file, or a PyTorch state dict), a run folder, or
    "kinetics400", torchvision's published weights for `name`, which are downloaded. They are those of the same
    network, or an R3D's for an MSF-R3D, whose convolutions then start from their parts of the dense ones. The last
    layer may have another number of classes, and attention may be another: both then stay fresh.

    Raises UserError naming the keys that do not fit, with both shapes where it is these.
    """
    found = read_state(source, name)
    state = {key: value.float() for key, value in found.items() if not key.endswith(COUNTER)}
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(COUNTER)}
    dense = takes_dense(model) and is_dense(state)
    swappable = _swappable(model, own.keys() | state.keys())
    unfit = _unfit(swappable, own, state)
    needed = dense_shapes(model) if dense else {key: tuple(own[key].shape) for key in own if key not in unfit}
    _refuse_others(f"model.pretrained={source} does not fit {name}", needed, state, swappable if dense else unfit)
    if dense:
        kept = {key: state[key] for key in own if key in swappable - unfit}
        taken = transplant(model, {key: state[key] for key in needed}) | Taken(kept)
    else:
        taken = Taken({key: state[key] for key in needed})
    counters = {key: found[key] for key in model.state_dict() if key.endswith(COUNTER) and key in found}
    model.load_state_dict(counters | taken.copied | taken.fitted, strict=False)
    fresh = (key for key in own if key not in taken.copied and key not in taken.fitted)
    return WarmStart(tuple(taken.copied), tuple(taken.fitted), tuple(fresh), tuple(sorted(unfit & state.keys())))


def _swappable(model: nn.Module, keys: Set[str]) -> set[str]:
    """Those of `keys` that may differ from network to network: the last layer's, and what stands for attention."""
    last = list(model.state_dict())[-1].rpartition(".")[0]
    places = [last, *(name for name, module in model.named_modules() if isinstance(module, ATTENTIONS))]
    return {key for key in keys if key.startswith(tuple(f"{place}." for place in places))}


def _unfit(swappable: set[str], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    """The swappable keys of every layer that is not in both alike; of the last one only where its classes differ."""
    unlike = {key for key in swappable if key not in own or key not in state or own[key].shape != state[key].shape}
    layers = {key.partition(".")[0] for key in unlike}
    return {key for key in swappable if key.partition(".")[0] in layers}


def _refuse_others(
    complaint: str, needed: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], spare: set[str]
) -> None:
    """Raise UserError unless `state` has what is needed and nothing else but what is `spare`."""
    found = {key: tuple(value.shape) for key, value in state.items()}
    first = next(iter(needed))
    if first in found and found[first][1:] == needed[first][1:] and found[first] != needed[first]:
        raise UserError(
            f"{complaint}: it is of another width, its {first} has {found[first][0]} channels, expected "
            f"{needed[first][0]}; change model.width_mult"
        )
    unlike = sorted(key for key in needed.keys() & found.keys() if needed[key] != found[key])
    shapes = f", {found[unlike[0]]} instead of {needed[unlike[0]]}" if unlike else ""
    groups = {
        "missing": (sorted(needed.keys() - found.keys()), ""),
        "unknown": (sorted(found.keys() - needed.keys() - spare), ""),
        "of another shape": (unlike, shapes),
    }
    counts = [f"{len(keys)} {what} (first: {keys[0]}{more})" for what, (keys, more) in groups.items() if keys]
    if counts:
        raise UserError(f"{complaint}: keys {', '.join(counts)}")


def _parts(keys: Iterable[str]) -> str:
    """How many of the keys lie in each part of the network, in their order."""
    counts = Counter(key.partition(".")[0] for key in keys)
    return ", ".join(f"{part} {n}" for part, n in counts.items())


def read_state(source: str, name: str) -> State:
    """The tensors of a file or run folder, or those published for `name`; see `load_pretrained`.

    Raises UserError when there is nothing to read, or nothing that can be read without running code it brings along.
    """
    if source == "kinetics400":
        return _published(name)
    path = Path(source) / WEIGHTS if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise UserError(f"model.pretrained: expected a file, a run folder or kinetics400, found nothing at {source}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged file makes it raise
        raise UserError(f"model.pretrained: {path} is not a state dict that can be read safely") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"model.pretrained: expected a dict of tensors in {path}, found something else")
    return loaded


def published_url(name: str) -> str:
    """Where torchvision keeps weights that a network can start from. Raises UserError when there are none."""
    for backbone, url in KINETICS400_URLS.items():
        if name == backbone or name.startswith(f"{backbone}_"):
            return url
    raise UserError(f"model.pretrained=kinetics400 is there for {', '.join(KINETICS400_URLS)}, found {name}")


def _published(name: str) -> State:
    url = published_url(name)
    try:
        state: State = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except OSError as error:
        raise UserError(
            f"model.pretrained=kinetics400: cannot download {url} ({error}); download it elsewhere and give the file's path"
        ) from error
    return state
