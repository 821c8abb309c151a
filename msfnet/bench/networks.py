"""The networks that are measured: by name, or from weights. A `Network` can be rebuilt in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from msfnet.models.checkpoint import load_weights, read_header
from msfnet.models.registry import INPUT, MODELS, create_model, default_kwargs, summarize
from msfnet.run_folder import BUNDLED, WEIGHTS, resolve_weights
from msfnet.types import Preprocessing, UserError, nearest

NUM_CLASSES = 101  # for networks given by name; the last layer is a negligible part of the work
REFERENCE = "r3d_18"


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        label: Its name in tables.
        name: Its name in `list_models()`.
        kwargs: Arguments of `create_model`.
        num_classes: Number of logits.
        input_shape: C T H W of a clip.
        weights: File of its weights; empty for a network with random weights.
        top1: Accuracy recorded in the weights file, if any.
    """

    label: str
    name: str
    kwargs: Mapping[str, Any]
    num_classes: int
    input_shape: tuple[int, int, int, int]
    weights: str = ""
    top1: float | None = None

    def __hash__(self) -> int:  # a mapping has no hash
        return hash((self.label, self.name, self.input_shape, self.weights))

    def make(self) -> nn.Module:
        """Build the network, with its weights if it has any."""
        if self.weights:
            return load_weights(Path(self.weights)).model
        return create_model(self.name, self.num_classes, **self.kwargs)

    def reference(self) -> Network:
        """Return the R3D-18 that it is compared with: of the same width, for the same clips and classes."""
        channels, frames, size, _ = self.input_shape
        kwargs = {
            "width_mult": self.kwargs.get("width_mult", 1.0),
            "in_chans": channels,
            "num_frames": frames,
            "img_size": size,
        }
        return _by_name(REFERENCE, kwargs, self.num_classes)

    def cost(self, train: bool) -> tuple[int, int]:
        """Return the number of parameters and of multiply-adds per clip.

        Args:
            train: Count those of a training step instead of a forward pass.
        """
        summary = summarize(self.name, self.num_classes, **self.kwargs)
        return summary.params, _step_macs(self) if train else summary.macs

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Network:
        """Invert `to_dict`, after a round trip through JSON."""
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})


def find_network(text: str, kwargs: Mapping[str, Any]) -> Network:
    """Return the network that a user names.

    Args:
        text: A name of `list_models()`, a run folder, a weights file or the name of bundled weights.
        kwargs: Arguments of `create_model` for a name; weights have their own.

    Raises:
        UserError: There is no such network, or its weights cannot be read.
    """
    if text in MODELS:
        return _by_name(text, kwargs, NUM_CLASSES)
    if text != BUNDLED and not Path(text).exists():
        raise UserError(
            f"expected a network of `msfnet models`, a run folder or a weights file, found {text!r}; "
            f"{nearest(text, MODELS)}"
        )
    return _from_weights(resolve_weights(Path(text)))


def _by_name(name: str, kwargs: Mapping[str, Any], num_classes: int) -> Network:
    width = kwargs.get("width_mult", 1)
    label = name if width == 1 else f"{name} x{width:g}"
    shape = summarize(name, num_classes, **kwargs).input
    defaults = INPUT | default_kwargs(name)
    # Without defaults, so that a network and an equal reference are the same and are measured once.
    given = {key: value for key, value in kwargs.items() if key not in defaults or value != defaults[key]}
    return Network(label, name, given, num_classes, shape)


def _from_weights(file: Path) -> Network:
    header = read_header(file)
    notes, model = header.get("notes", {}), header["model"]
    top1 = notes.get("test", {}).get("top1", notes.get("val_top1"))
    shape = Preprocessing.from_dict(header["preprocessing"]).input_shape
    label = file.parent.name if file.name == WEIGHTS else file.stem
    return Network(label, model["name"], model["kwargs"], len(header["classes"]), shape, str(file.resolve()), top1)


def _step_macs(network: Network) -> int:
    """Return the multiply-adds per clip of a forward and backward pass, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = create_model(network.name, network.num_classes, **network.kwargs).train()
        # Two clips: batch norms cannot train on a single value per channel.
        clips, labels = torch.zeros(2, *network.input_shape), torch.zeros(2, dtype=torch.int64)
        F.cross_entropy(model(clips), labels).backward()
    return counter.get_total_flops() // 4  # two clips, two operations per multiply-add
