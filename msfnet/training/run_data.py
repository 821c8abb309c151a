"""The dataset of a run: recorded in the run folder at the start, and found again to resume, also in another place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import read_dataset
from msfnet.data.augment.augmentation import Transform
from msfnet.data.cache import content
from msfnet.data.dataset import Dataset, VideoDataset
from msfnet.data.video_files import VideoFiles
from msfnet.environment import describe_environment
from msfnet.recipe import Recipe, load_recipe
from msfnet.run_folder import (
    RECIPE,
    RecordedVideo,
    Run,
    can_resume,
    holds_run,
    normalized,
    resume_command,
    write_environment,
    write_split,
)
from msfnet.types import UserError, VideoItem

READERS = 16  # threads that read the ends of files, most of the time waiting for a disk or a network


def check_out(folder: Path) -> None:
    """Refuse a run folder that cannot be created because a file has its path, or that of a folder above it.

    Args:
        folder: The run folder.

    Raises:
        UserError: There is such a file.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"expected a folder to write the run to, found the file {path}; name another --out")


def start_folder(folder: Path, recipe: Recipe, data: Dataset, transform: Transform | None = None) -> None:
    """Write what is known before training: recipe.toml, split.csv and environment.json.

    Args:
        folder: The run folder.
        recipe: All settings of the run.
        data: The dataset, with a split for every video.
        transform: The user's own transform of training clips.

    Raises:
        UserError: The folder holds a run.
    """
    if holds_run(folder):
        raise UserError(
            f"expected a folder without a run, found one in {folder}; choose another --out, or continue it with "
            f"{resume_command(folder)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    root, videos = record_videos(data)
    write_split(folder, videos)
    own = {
        "seed": recipe.train.seed,
        "videos": len(data.items),
        "data_root": root,
        "data_location": data.location,
        "data_fingerprint": data.fingerprint,
        "transform": _name(transform),
    }
    write_environment(folder, describe_environment() | own)
    write_text(folder / RECIPE, recipe.to_toml())


def find_dataset(folder: Path, data: Dataset | None, transform: Transform | None) -> tuple[Recipe, Dataset]:
    """Return the recipe of a run, and its dataset with the splits that the run started with.

    Where the dataset is given, environment.json says from then on where it is.

    Args:
        folder: The run folder.
        data: The dataset where it is now; None if it has not been moved.
        transform: The user's own transform of training clips, which the folder cannot hold.

    Raises:
        UserError: There is no run to resume, the dataset is not that of the run, or the transform is another one.
    """
    if not can_resume(folder):
        raise UserError(f"expected a run to resume in {folder}, found no checkpoint there; train without --resume")
    recipe, environment = load_recipe(folder / RECIPE), Run(folder).environment
    if (started_with := environment.get("transform")) != _name(transform):
        raise UserError(f"expected the transform that the run in {folder} started with ({started_with}), found another")
    if data is None and not environment.get("data_location"):
        return recipe, _recorded_files(folder, environment.get("data_root"))
    found = data or read_dataset(environment["data_location"])
    if isinstance(found, VideoDataset):
        found = _with_recorded_splits(folder, found)
    elif found.fingerprint != environment["data_fingerprint"]:
        raise UserError(f"expected the videos that the run in {folder} started with, found others in {found.source}")
    if data is not None:
        moved = {"data_root": record_videos(found)[0], "data_location": found.location}
        write_environment(folder, environment | moved)
    return recipe, found


def record_videos(data: Dataset) -> tuple[str | None, list[RecordedVideo]]:
    """Return the rows of split.csv, and the folder that their paths start from.

    That folder is the deepest one that holds all videos. It is None where the videos are no files, or are on several
    drives: then a path is a name in the dataset, or absolute.
    """
    with ThreadPoolExecutor(READERS) as pool:
        fingerprints = list(pool.map(_content, data.items))
    root = _common_folder([item for item, found in zip(data.items, fingerprints, strict=True) if found])
    videos = [
        RecordedVideo(
            _below(root, item) if found else item.path.as_posix(), item.label, item.split or "", item.group or "", found
        )
        for item, found in zip(data.items, fingerprints, strict=True)
    ]
    return root, videos


def _content(item: VideoItem) -> str:
    try:
        return content.fingerprint(item.path)
    except OSError:  # a video in shards, or one that its dataset knows by a name
        return ""


def _common_folder(items: Sequence[VideoItem]) -> str | None:
    try:
        return os.path.commonpath([normalized(item.path).parent for item in items])
    except ValueError:  # no files, or files on several drives
        return None


def _below(root: str | None, item: VideoItem) -> str:
    path = normalized(item.path)
    return path.relative_to(root).as_posix() if root else path.as_posix()


def _recorded_files(folder: Path, root: str | None) -> Dataset:
    """Return the files of split.csv, unchanged and where they were."""
    recorded = Run(folder).split
    files = VideoFiles(tuple(video.to_item(Path(root or "")) for video in recorded), "the run's split")
    missing = [item.path for item in files.items if not item.path.exists()]
    if missing:
        raise UserError(
            f"expected the {len(files.items)} videos that the run in {folder} started with, found {len(missing)} "
            f"missing (first: {missing[0]}); if they were moved, name the dataset: {resume_command(folder)} DATA"
        )
    return _with_recorded_splits(folder, files)


def _with_recorded_splits(folder: Path, data: VideoDataset) -> VideoDataset:
    """Return a dataset with the splits and the order of split.csv, after comparing paths, labels and contents."""
    recorded = Run(folder).split
    found = {video.path: (video, item) for video, item in zip(record_videos(data)[1], data.items, strict=True)}
    if difference := _difference(recorded, {path: video for path, (video, _) in found.items()}):
        raise UserError(
            f"expected the {len(recorded)} videos that the run in {folder} started with, found others in "
            f"{data.source}: {difference}"
        )
    items = []
    for video in recorded:
        path = found[video.path][1].path
        items.append(VideoItem(path, video.label, video.split, video.group or None))
    return data.with_items(items)


def _difference(recorded: Sequence[RecordedVideo], found: dict[str, RecordedVideo]) -> str:
    """Return the first difference between the videos of a run and those of a dataset; empty if there is none."""
    for video in recorded:
        other = found.get(video.path)
        if other is None:
            return f"{video.path} is missing"
        if other.label != video.label:
            return f"{video.path} is labeled {other.label}, not {video.label}"
        if other.fingerprint != video.fingerprint:
            return f"{video.path} has another content"
    added = found.keys() - {video.path for video in recorded}
    return f"{min(added)} was added" if added else ""


def _name(transform: Transform | None) -> str | None:
    return None if transform is None else str(getattr(transform, "__qualname__", type(transform).__qualname__))
