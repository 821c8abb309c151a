"""Parses names: the group of a clip, the split of an annotation file, the label that a folder stands for.

It handles the naming schemes of UCF101, HMDB51 and Kinetics. Pure functions of text; no file is opened.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from msfnet.data.video.frame_folders import VIDEO_SUFFIXES
from msfnet.types import UserError

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
SPLIT_NAMES = SPLIT_FOLDERS | {"training": "train", "validate": "val", "testing": "test"}

_UCF101 = re.compile(r"v_.+_g(\d+)_c\d+")
_HMDB51 = re.compile(r"(.+)_[hulf]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+")
_KINETICS = re.compile(r"([\w-]{11})_\d{6}_\d{6}", re.ASCII)


# Comparing names


def video_name(path: Path) -> str:
    """Return the name without the suffix of a video. Other dots belong to the name: frame folders have no suffix."""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def compose_accents(text: str) -> str:
    """Write accented letters as one character each (Unicode NFC): macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", text)


def simplify(text: str) -> str:
    """Keep lowercase letters and digits: `Tying_knot (not on a tie)` and `tying knot not on a tie` become equal."""
    lower = compose_accents(text).casefold()
    return "".join(c for c in lower if c.isalnum()) or lower


# Groups


def group_of(path: Path, label: str) -> str | None:
    """Return the group of a clip by its name, None if the name follows no known scheme.

    Args:
        path: The clip.
        label: Its class, which names of HMDB51 contain.
    """
    return ucf101_group(path) or hmdb51_group(path, label) or kinetics_group(path)


def source_of(path: str) -> str:
    """Cut the path of a clip after its group; a path without one is returned whole.

    Archery/v_Archery_g01_c02.avi -> Archery/v_Archery_g01.
    """
    group = group_of(Path(path), Path(path).parent.name)
    return path[: path.rindex(group) + len(group)] if group else path


def ucf101_group(path: Path) -> str | None:
    """Return the group in a name of UCF101 (v_Archery_g01_c02 -> g01): its clips show one person or scene."""
    match = _UCF101.fullmatch(video_name(path))
    return f"g{match[1]}" if match else None


def hmdb51_group(path: Path, label: str) -> str | None:
    """Return the source in a name of HMDB51 (Glory_fall_floor_f_cm_np1_fr_med_0 of class fall_floor -> Glory)."""
    match = _HMDB51.fullmatch(video_name(path))
    if not match or not match[1].endswith(f"_{label}"):
        return None
    return match[1].removesuffix(f"_{label}")


def kinetics_group(path: Path) -> str | None:
    """Return the YouTube id in a name of Kinetics (0wR5jVB-WPk_000417_000427 -> 0wR5jVB-WPk)."""
    match = _KINETICS.fullmatch(video_name(path))
    return match[1] if match else None


# Splits


def parse_split(text: str, where: str) -> str | None:
    """Return the split that a value stands for; None for an empty one, and a UserError for any other."""
    name = text.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise UserError(f"{where}: expected split train, val or test, found {text!r}")
    return SPLIT_NAMES[name] if name else None


def split_of_file_name(stem: str) -> str | None:
    """Return the split in the name of an annotation file, such as kinetics-400_validate or jester-v1-train."""
    words = [word for word in re.split(r"[^a-z]+", stem.lower()) if word in SPLIT_NAMES]
    return SPLIT_NAMES[words[0]] if words else None
