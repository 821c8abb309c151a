"""What names say: of a clip its source, of a list its part of the data, of a folder the label that it is meant to be.

Knows the habits of UCF101, HMDB51 and Kinetics. Text in, text out.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from msfnet.data.video.frame_folders import VIDEO_SUFFIXES
from msfnet.types import UserError

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
SPLIT_NAMES = SPLIT_FOLDERS | {"training": "train", "validate": "val", "testing": "test"}

_UCF = re.compile(r"v_.+_g(\d+)_c\d+")
_HMDB = re.compile(r"(.+)_[hulf]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+")
_KINETICS = re.compile(r"([\w-]{11})_\d{6}_\d{6}", re.ASCII)


def video_name(path: Path) -> str:
    """The name without a video's ending. Other dots are part of it: folders of frames have no ending."""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def composed(text: str) -> str:
    """The text with its accents as one character each: some systems take the names of files apart."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """The letters and digits alone, all small: `Tying_knot (not on a tie)` and `tying knot not on a tie` are one."""
    small = composed(text).casefold()
    return "".join(c for c in small if c.isalnum()) or small


def group_of(path: Path, label: str) -> str | None:
    """What clips that share a source have in common in their names, where they say it."""
    return ucf_group(path) or hmdb_group(path, label) or kinetics_group(path)


def source_of(path: str) -> str:
    """The path of a clip as far as it tells the source; all of it where the name does not say which that is.

    Archery/v_Archery_g01_c02.avi -> Archery/v_Archery_g01.
    """
    group = group_of(Path(path), Path(path).parent.name)
    return path[: path.rindex(group) + len(group)] if group else path


def ucf_group(path: Path) -> str | None:
    """The group in a UCF101 name (v_Archery_g01_c02 -> g01): clips of one group show one person or scene."""
    match = _UCF.fullmatch(video_name(path))
    return f"g{match[1]}" if match else None


def hmdb_group(path: Path, label: str) -> str | None:
    """The source in an HMDB51 name (Glory_fall_floor_f_cm_np1_fr_med_0 of class fall_floor -> Glory)."""
    match = _HMDB.fullmatch(video_name(path))
    if not match or not match[1].endswith(f"_{label}"):
        return None
    return match[1].removesuffix(f"_{label}")


def kinetics_group(path: Path) -> str | None:
    """The YouTube id in a Kinetics name (0wR5jVB-WPk_000417_000427 -> 0wR5jVB-WPk)."""
    match = _KINETICS.fullmatch(video_name(path))
    return match[1] if match else None


def split_named(text: str, where: str) -> str | None:
    """The split that a value means; None when it is empty. Raises UserError when it means none."""
    name = text.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise UserError(f"{where}: expected split train, val or test, found {text!r}")
    return SPLIT_NAMES[name] if name else None


def split_in(file_name: str) -> str | None:
    """The split that the name of a list tells, as in kinetics-400_validate.csv or jester-v1-train.csv."""
    words = [word for word in re.split(r"[^a-z]+", file_name.lower()) if word in SPLIT_NAMES]
    return SPLIT_NAMES[words[0]] if words else None
