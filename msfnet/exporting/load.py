"""A network from any file that msfnet writes: weights, a run folder, or what `msfnet export` made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msfnet.exporting import onnx_file, openvino_file, torch_file
from msfnet.inference.fused import fuse
from msfnet.models.checkpoint import Checkpoint, load_weights
from msfnet.types import UserError

LOADERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".onnx": onnx_file.load,
    ".xml": openvino_file.load,
    ".pt2": torch_file.load,
}


def load_network(path: Path) -> Checkpoint:
    """By the file's ending; all but these are weights or a run folder. The network is ready to run, not to learn.

    Raises UserError for a path that is not there or not ours, and where the library that runs it is missing.
    """
    loader = LOADERS.get(path.suffix.lower())
    if loader is None or path.is_dir():
        weights = load_weights(path)
        return replace(weights, model=fuse(weights.model))
    if not path.is_file():
        raise UserError(f"expected a file that msfnet export wrote, found none at {path}")
    return loader(path)
