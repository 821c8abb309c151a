"""Where the weights lie that a user names. Knows no torch, so that a wrong path is refused before that is imported."""

from __future__ import annotations

from pathlib import Path

from msfnet.types import UserError

WEIGHTS = "weights.safetensors"


def weights_file(path: Path) -> Path:
    """The file itself, or the best one of a run folder. Raises UserError when it is not there."""
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"expected weights (.safetensors), a run folder or an exported file, found none at {file}")
    return file
