"""Where the weights lie that a user names. Knows no torch, so that a wrong path is refused before that is imported."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from msfnet.types import UserError

WEIGHTS = "weights.safetensors"
SHIPPED = "msfnet_ucf101_18"  # the network that comes with msfnet; docs/pretrained-model.md
ENDINGS = (".safetensors", ".onnx", ".xml", ".pt2")


def weights_file(path: Path) -> Path:
    """The file itself, the best one of a run folder, or the shipped one by its name.

    Raises UserError when it is not there.
    """
    if str(path) == SHIPPED and not path.exists():
        return Path(__file__).parent.parent / "weights" / f"{SHIPPED}.safetensors"
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"expected weights (.safetensors), a run folder or an exported file, found none at {file}")
    return file


def names_weights(word: str) -> bool:
    """Whether it is meant as weights, there or not, rather than as a video or a folder of videos.

    What is not there and has no ending is taken for a run folder.
    """
    path = Path(word)
    if path.is_dir():
        return (path / WEIGHTS).is_file() or (path / "recipe.toml").is_file()
    absent = not path.exists() and not path.suffix and not glob.has_magic(word)
    return absent or path.suffix.lower() in ENDINGS


def split_words(words: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """The weights that the first word names, else the shipped ones, and the words that are left: the videos.

    Raises UserError when nothing is left.
    """
    named = bool(words) and names_weights(words[0])
    sources = words[named:]
    if not sources:
        found = f"the weights {words[0]} alone" if named else "nothing"
        raise UserError(f"expected videos, folders or globs, found {found}; add some: predict [WEIGHTS] VIDEO ...")
    return Path(words[0] if named else SHIPPED), sources
