"""What is measured: a named network, or weights that a run left. Knows what it takes to make it again elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from msfnet.models.checkpoint import load_weights, read_header
from msfnet.models.registry import MODELS, create_model, summarize
from msfnet.run_folder import BUNDLED, WEIGHTS, resolve_weights
from msfnet.types import Preprocessing, UserError, nearest

CLASSES = 101  # of named networks: the last layer is next to nothing of the work
REFERENCE = "r3d_18"


@dataclass(frozen=True)
class Network:
    """`label` names it to the user, `top1` is the share of videos that its weights are right about, where they say."""

    label: str
    name: str
    kwargs: Mapping[str, Any]
    num_classes: int
    input_shape: tuple[int, int, int, int]  # C T H W
    weights: str = ""  # their file
    top1: float | None = None

    def __hash__(self) -> int:
        return hash((self.label, self.name, self.input_shape, self.weights))

    def make(self) -> nn.Module:
        if self.weights:
            return load_weights(Path(self.weights)).model
        return create_model(self.name, self.num_classes, **self.kwargs)

    def reference(self) -> Network:
        """The R3D-18 that it is compared with: as wide, for the same input and classes."""
        channels, frames, size, _ = self.input_shape
        own = {
            "width_mult": self.kwargs.get("width_mult", 1.0),
            "in_chans": channels,
            "num_frames": frames,
            "img_size": size,
        }
        return _named(REFERENCE, own, self.num_classes)

    def cost(self, train: bool) -> tuple[int, int]:
        """Parameters, and the multiply-adds of a clip: of the forward pass, or of a whole training step."""
        summary = summarize(self.name, self.num_classes, **self.kwargs)
        if not train:
            return summary.params, summary.macs
        return summary.params, _step_macs(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Network:
        """The inverse of `to_dict`, after a round trip through JSON."""
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})


def find_network(text: str, kwargs: Mapping[str, Any]) -> Network:
    """The network of that name, made with `arguments`, or that of a run folder or weights file, which has its own.

    Raises UserError when it is neither.
    """
    if text in MODELS:
        return _named(text, kwargs, CLASSES)
    if text != BUNDLED and not Path(text).exists():
        raise UserError(
            f"expected a network of `msfnet models`, a run folder or a weights file, found {text!r}; "
            f"{nearest(text, MODELS)}"
        )
    return _of_weights(resolve_weights(Path(text)))


def _named(name: str, kwargs: Mapping[str, Any], num_classes: int) -> Network:
    width = kwargs.get("width_mult", 1)
    label = name if width == 1 else f"{name} x{width:g}"
    shape = summarize(name, num_classes, **kwargs).input
    return Network(label, name, dict(kwargs), num_classes, shape)


def _of_weights(file: Path) -> Network:
    header = read_header(file)
    own = Preprocessing.from_dict(header["preprocessing"])
    notes, model = header.get("notes", {}), header["model"]
    top1 = notes.get("test", {}).get("top1", notes.get("val_top1"))
    shape = own.channels, own.num_frames, own.crop_size, own.crop_size
    label = file.parent.name if file.name == WEIGHTS else file.stem
    return Network(label, model["name"], model["kwargs"], len(header["classes"]), shape, str(file.resolve()), top1)


def _step_macs(network: Network) -> int:
    """Multiply-adds of forward and backward pass of one clip, counted without computing them."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = create_model(network.name, network.num_classes, **network.kwargs).train()
        clips, labels = torch.zeros(2, *network.input_shape), torch.zeros(2, dtype=torch.int64)  # norms need two
        F.cross_entropy(model(clips), labels).backward()
    return counter.get_total_flops() // 4
