"""Exported files as networks again, by the ending of their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msfnet.exporting import onnx_file, openvino_file, torch_file
from msfnet.models.checkpoint import Checkpoint
from msfnet.types import UserError

LOADERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".onnx": onnx_file.load,
    ".xml": openvino_file.load,
    ".pt2": torch_file.load,
}
CPU_ONLY = (".onnx", ".xml")  # the runtimes of these compute on the CPU alone


def is_exported(path: Path) -> bool:
    """Return whether the path names an exported file, present or not."""
    return path.suffix.lower() in LOADERS and not path.is_dir()


def load_exported(path: Path) -> Checkpoint:
    """Load a file that `msfnet export` wrote, with the library that runs it.

    Args:
        path: An .onnx, .xml or .pt2 file. PyTorch's reader of .pt2 can run code in the file; the others cannot.

    Returns:
        A checkpoint whose network can only be run, not trained.

    Raises:
        UserError: The file does not exist, msfnet did not write it, or the library is not installed.
    """
    if not path.is_file():
        raise UserError(f"expected a file that msfnet export wrote, found none at {path}")
    return LOADERS[path.suffix.lower()](path)
