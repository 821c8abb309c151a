"""Finds the videos that files, folders and globs name.

Only names are looked at, without torch, so that mistakes are reported before seconds are spent on its import.
"""

from __future__ import annotations

import glob
import mimetypes
from collections.abc import Sequence
from pathlib import Path

from msfnet.data.video.frame_folders import find_videos, is_frame_folder, is_hidden, is_video
from msfnet.types import UserError

# Files that training and export write and whose kind `mimetypes` does not know in every version of Python.
OWN_SUFFIXES = frozenset({".onnx", ".pt", ".pt2", ".safetensors", ".toml", ".yaml"})


def find_sources(sources: Sequence[str]) -> list[Path]:
    """Return the videos that files, folders and globs name, each once, in order.

    Args:
        sources: A folder stands for the videos below it and for all files below it whose names may be of videos. A
            folder of images, given or found, is one video. Files that are named are taken with any suffix.

    Raises:
        UserError: A source names nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if is_frame_folder(path):
            paths = [path]
        elif path.is_dir():
            paths = _sources_below(path)
        elif path.exists():
            paths = [path]
        else:
            paths = [
                Path(p)
                for p in sorted(glob.glob(source, recursive=True))
                if Path(p).is_file() or is_frame_folder(Path(p))
            ]
        if not paths:
            raise UserError(f"expected a video, a folder with videos or a glob that matches some, found {source!r}")
        found |= dict.fromkeys(paths)
    return list(found)


def _sources_below(folder: Path) -> list[Path]:
    """Return videos, frame folders, and files whose names do not rule out a video, except those in frame folders."""
    videos = find_videos(folder)
    frames = {path for path in videos if path.is_dir()}
    others = (p for p in folder.rglob("*") if p.is_file() and _may_be_video(p.relative_to(folder)))
    return sorted({*videos, *(p for p in others if frames.isdisjoint(p.parents))})


def _may_be_video(path: Path) -> bool:
    if any(is_hidden(name) for name in path.parts):
        return False
    if path.suffix.lower() in OWN_SUFFIXES or ".tfevents." in path.name:  # events of TensorBoard end in any number
        return False
    kind, _ = mimetypes.guess_type(path.name)
    return is_video(path) or kind is None or kind.startswith(("video/", "audio/"))
