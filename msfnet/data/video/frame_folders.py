"""What counts as a video on disk: a file with a video's ending, or a folder of images, one a frame.

Looks at names alone: no video and no image is opened here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv", ".y4m",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
JUNK = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN"}
)  # what archivers, storage boxes and Python leave

_FLOW = re.compile(r"flow_[xy]_?\d")  # optical flow, which some tools write beside the frames
_DIGITS = re.compile(r"([0-9]+)")


def is_video(path: Path) -> bool:
    """Whether the name is a video file's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's. (`__` alone says nothing: ids of clips begin with it.)"""
    return name.startswith(".") or name in JUNK


def is_frame_folder(path: Path) -> bool:
    """Whether `path` is a folder that directly holds at least one image and no video: it is one video then."""
    return path.is_dir() and _holds_frames(list(path.iterdir()))


def frame_files(path: Path) -> list[Path]:
    """The images of a frame folder in natural order: frame2.png comes before frame10.png."""
    return sorted((p for p in path.iterdir() if _is_frame(p) and p.is_file()), key=_natural)


def videos_below(folder: Path, _links: tuple[Path, ...] = ()) -> list[Path]:
    """All videos below a folder, sorted: files and frame folders, whose images are not looked at any further.

    Images above videos are their covers, not frames. Links are followed, but never round in a circle.
    """
    folders, videos = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir() and not is_hidden(entry.name):
                folders.append(path)
            elif is_video(path) and entry.is_file():
                videos.append(path)
    for path in folders:
        target = (path.resolve(),) if path.is_symlink() else ()
        if target and target[0] in _links:
            continue
        below = videos_below(path, _links + target)
        only_frames = all(p.is_dir() for p in below)
        videos += [path] if only_frames and is_frame_folder(path) else below
    return sorted(videos)


def _holds_frames(paths: list[Path]) -> bool:
    return any(_is_frame(p) for p in paths) and not any(is_video(p) for p in paths)


def _is_frame(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) and not _FLOW.match(path.name)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """A sort key that takes digits as numbers. Text and number take turns, so keys are always comparable."""
    parts = _DIGITS.split(path.stem.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
