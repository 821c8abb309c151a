"""Videos on disk: files with the suffix of a video, and frame folders, which hold one image per frame.

Only names are examined; no video and no image is opened.
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
SYSTEM_FOLDERS = frozenset({"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN"})  # not the user's folders

_FLOW = re.compile(r"flow_[xy]_?\d")  # optical flow, which some tools write beside the frames
_DIGITS = re.compile(r"([0-9]+)")


def is_video(path: Path) -> bool:
    """Return whether the name is that of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden or of the system. A leading `__` is no criterion: YouTube ids may have one."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_frame_folder(path: Path) -> bool:
    """Return whether `path` is a folder that directly holds an image and no video, so that it is a video itself."""
    return path.is_dir() and _holds_frames(list(path.iterdir()))


def frame_files(path: Path) -> list[Path]:
    """List the images of a frame folder in natural order: frame2.png comes before frame10.png."""
    return sorted((p for p in path.iterdir() if _is_frame(p) and p.is_file()), key=_natural_key)


def find_videos(folder: Path, _links: tuple[Path, ...] = ()) -> list[Path]:
    """List all videos below a folder, sorted.

    Images above videos are covers and not frames. Links are followed, but not around a loop.

    Args:
        folder: Where to look, at any depth.

    Returns:
        Video files and frame folders; images and folders in a frame folder are not looked at.
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
        below = find_videos(path, _links + target)
        only_frame_folders = all(p.is_dir() for p in below)
        videos += [path] if only_frame_folders and is_frame_folder(path) else below
    return sorted(videos)


def _holds_frames(paths: list[Path]) -> bool:
    return any(_is_frame(p) for p in paths) and not any(is_video(p) for p in paths)


def _is_frame(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) and not _FLOW.match(path.name)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key that compares digits as numbers. Text and numbers alternate, so all keys are comparable."""
    parts = _DIGITS.split(path.stem.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
