"""Read a dataset of any form: class folders, a manifest, official annotation files, or shards.

The form is recognized by the names of files. No video is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msfnet.data.annotations.names import SPLIT_FOLDERS, group_of, parse_split
from msfnet.data.annotations.official import read_official
from msfnet.data.annotations.tables import DuplicateRows, Row, read_columns, read_table
from msfnet.data.dataset import Dataset
from msfnet.data.shards.index import is_shards, read_shards
from msfnet.data.video.frame_folders import VIDEO_SUFFIXES, find_videos, is_frame_folder, is_hidden, is_video
from msfnet.data.video_files import VideoFiles
from msfnet.types import UserError, VideoItem

MANIFEST = "manifest.csv"


def read_dataset(data: Path | str, annotations: Path | str | None = None, split: int = 1) -> Dataset:
    """Read a dataset of any form; `docs/commands.md` describes them under DATA.

    Args:
        data: A folder of class folders, a manifest or its folder, a folder of videos, or the folder or URL of shards.
        annotations: The folder of the official annotation files of a folder of videos.
        split: Number of the split, for datasets with several.

    Returns:
        The videos with their labels and, if given, their splits and groups.

    Raises:
        UserError: A path does not exist, a class has no video, or a file cannot be read.
    """
    if is_shards(str(data)):
        if annotations is not None:
            raise UserError(f"expected a folder of videos with --annotations, found the shards {data}")
        _expect_one_split(split, f"the shards {data}")
        return read_shards(str(data))
    return read_video_files(Path(data), annotations, split)


def read_video_files(data: Path, annotations: Path | str | None = None, split: int = 1) -> VideoFiles:
    """Read a dataset of video files.

    Args:
        data: As of `read_dataset`, without shards.
        annotations: The folder of the official annotation files of a folder of videos.
        split: Number of the split, for datasets with several.

    Returns:
        The videos with their labels and, if given, their splits and groups.

    Raises:
        UserError: As `read_dataset`, and for shards, which hold no video files.
    """
    if not data.exists():
        raise UserError(f"expected a folder of videos or a manifest, found nothing at {data}")
    if is_shards(str(data)):
        raise UserError(f"expected video files, found shards in {data}; name the videos that they were written from")
    if annotations is not None:
        files = read_official(data, Path(annotations), split)
    elif is_video(data) and data.is_file():
        raise UserError(
            f"expected a folder of videos or a manifest, found the video {data}; is it one for msfnet predict?"
        )
    elif data.is_file():
        files = read_manifest(data, split)
    elif (data / MANIFEST).is_file():
        files = read_manifest(data / MANIFEST, split)
    else:
        _expect_one_split(split, f"the class folders of {data}")
        files = _read_folders(data)
    if not files.items:
        missing = [f"all {len(files.missing)} listed videos are missing"] if files.missing else []
        found = "; ".join(("found none", *missing, *files.notes))
        raise UserError(f"expected videos under {data}, {found}; is this the right folder?")
    return files


def _expect_one_split(split: int, what: str) -> None:
    """Raise UserError for the number of a split where splits are not numbered."""
    if split != 1:
        raise UserError(f"expected --split 1, for {what} have no numbered splits, found --split {split}")


# Class folders


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not is_hidden(p.name))


def _read_folders(root: Path) -> VideoFiles:
    folders = _folders(root)
    split_folders = [f for f in folders if f.name.lower() in SPLIT_FOLDERS]
    if len(split_folders) < len(folders) and len(split_folders) > 1:
        other = next(f for f in folders if f not in split_folders)
        raise UserError(
            f"expected only folders like train, val and test, or only classes, found {split_folders[0].name} beside "
            f"{other.name} in {root}; move one of them"
        )
    if split_folders and len(split_folders) == len(folders):
        parts: list[tuple[str | None, Path]] = [(SPLIT_FOLDERS[f.name.lower()], f) for f in split_folders]
    else:
        parts = [(None, root)]
    items = [item for split, folder in parts for item in _read_classes(folder, split)]
    notes = [note for _, folder in parts if (note := _note_outside(folder))]
    return VideoFiles(tuple(items), "class folders", notes=tuple(notes))


def _read_classes(root: Path, split: str | None) -> Iterator[VideoItem]:
    for folder in _folders(root):
        videos = find_videos(folder)
        if not videos and is_frame_folder(folder):
            raise UserError(
                f"class folder {folder} holds only images; put the frames of each video in a folder of its own"
            )
        if not videos:
            raise UserError(
                f"class folder {folder} has no video (expected files ending in {', '.join(sorted(VIDEO_SUFFIXES))}, or "
                "folders of images); add some or remove the folder"
            )
        for path in videos:
            yield VideoItem(path, folder.name, split, group_of(path, folder.name))


def _note_outside(folder: Path) -> str | None:
    """Return a note about videos beside the class folders."""
    outside = sorted(p.name for p in folder.iterdir() if is_video(p) and p.is_file())
    if not outside:
        return None
    return f"{len(outside)} videos in {folder} are in no class folder and left out (first: {outside[0]})"


# Manifests


def read_manifest(path: Path, split: int = 1) -> VideoFiles:
    """Read a manifest: a CSV file with columns path and label, and optionally split (or split1, split2, ...) and group.

    Args:
        path: The file. Paths of videos and frame folders in it are absolute or relative to its folder.
        split: Which of the columns split1, split2, ... to read, if there are several.

    Returns:
        The videos that exist, and the paths of those that are missing.

    Raises:
        UserError: A column is missing, or a row cannot be read or contradicts another one.
    """
    split_column = _split_column(path, split)
    rows = DuplicateRows()
    items, missing = [], []
    for row in read_table(path):
        listed, label = row.values["path"], _label(row)
        split_name = parse_split(row.values.get(split_column, ""), row.where)
        video = _existing(path.parent, listed)
        identity = os.path.normcase(os.path.normpath(video or path.parent / listed))
        if rows.is_duplicate(identity, label, split_name, row.where):
            continue
        if video is None:
            missing.append(listed)
            continue
        group = row.values.get("group", "").strip() or group_of(video, label)
        items.append(VideoItem(video, label, split_name, group))
    return VideoFiles(tuple(items), "manifest", tuple(missing))


def _split_column(path: Path, split: int) -> str:
    columns = read_columns(path)
    if not {"path", "label"} <= set(columns):
        raise UserError(f"{path}: expected a CSV with columns path and label, found {', '.join(columns)}")
    numbered = [column for column in columns if re.fullmatch(r"split\d+", column)]
    if numbered and f"split{split}" not in numbered:
        raise UserError(f"{path}: expected a split among {', '.join(numbered)}, found --split {split}")
    if not numbered:
        _expect_one_split(split, f"the columns of {path}")
    return f"split{split}" if numbered else "split"


def _label(row: Row) -> str:
    label = row.values["label"].strip()
    if not row.values["path"].strip() or not label:
        raise UserError(f"{row.where}: expected a path and a label, found {row.values['path']!r} and {label!r}")
    if "\n" in label or "\r" in label:
        raise UserError(f"{row.where}: expected a label of one line, found {label!r}; is a quote not closed?")
    return label


def _existing(folder: Path, listed: str) -> Path | None:
    """Return the video of a manifest row: by its name as written, stripped of spaces, or with Windows's \\ as /."""
    for name in (listed, listed.strip(), listed.strip().replace("\\", "/")):
        if (folder / name).is_file() or is_frame_folder(folder / name):
            return folder / name
    return None
