"""Examines a dataset and reports the result as text, as JSON and as a manifest of the usable videos."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import MANIFEST, read_video_files
from msfnet.data.cache.frame_cache import default_folder
from msfnet.data.shards.index import is_shards
from msfnet.data.video_files import VideoFiles
from msfnet.doctor.cost import TrainingCost, estimate_cost
from msfnet.doctor.file_info import VideoInfo
from msfnet.doctor.problems import KINDS, UNUSABLE, Problem, class_counts, find_problems, imbalance, usable_items
from msfnet.doctor.scan import scan_files
from msfnet.inference.network import choose_device
from msfnet.inference.sources import find_sources
from msfnet.recipe import Recipe
from msfnet.types import UserError, VideoItem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examination:
    """The result of examining a dataset.

    Attributes:
        data: The dataset as the user named it.
        dataset: Its videos.
        info: The description of every file.
        problems: Its problems, in the order of `KINDS`.
        clip_frames: Frames of a clip of the recipe, which short videos have fewer of.
        cost: What training with the recipe costs; None for videos without classes.
    """

    data: str
    dataset: VideoFiles
    info: dict[Path, VideoInfo]
    problems: list[Problem]
    clip_frames: int
    cost: TrainingCost | None

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems of each kind that occurs."""
        counted = Counter(problem.kind for problem in self.problems)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    @property
    def n_frames(self) -> int:
        """Number of decoded frames of all files."""
        return sum(file.frames for file in self.info.values())

    @property
    def duration_seconds(self) -> float:
        """Duration of all files."""
        return sum(file.duration_seconds for file in self.info.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what `msfnet doctor --json` prints."""
        items = self.dataset.items
        return {
            "data": self.data,
            "source": self.dataset.source,
            "n_videos": len(items),
            "n_frames": self.n_frames,
            "duration_seconds": round(self.duration_seconds, 1),
            "n_problems": len(self.problems),
            "counts": self.counts,
            "problems": [asdict(problem) for problem in self.problems],
            "clip_frames": self.clip_frames,
            "classes": class_counts(items),
            "imbalance": round(imbalance(items), 3),
            "cost": self.cost.to_dict() if self.cost else None,
            "files": [_file_entry(item, self.info[item.path]) for item in items],
        }

    def to_text(self) -> str:
        """Return a line per problem, then a summary of the dataset."""
        problems = [f"{p.kind}: {p.subject}: {p.reason}" for p in self.problems]
        lines = [*problems, ""] if problems else []
        lines.append(f"{_describe(self.dataset)}: {self.n_frames} frames, {self.duration_seconds / 3600:.2f} hours")
        if self.cost:
            lines.append(f"the largest class has {imbalance(self.dataset.items):.1f} times the videos of the smallest")
            lines.append(f"training cost: {self.cost.describe()}")
        counted = ", ".join(f"{n} {kind} ({KINDS[kind]})" for kind, n in self.counts.items())
        return "\n".join([*lines, f"problems found: {counted}" if counted else "no problems found"])


def examine(
    data: Path, annotations: Path | None, split: int, recipe: Recipe, *, needs_classes: bool = False
) -> Examination:
    """Decode every video of a dataset and find its problems. After an interruption, it decodes only what is left.

    Args:
        data: A folder or manifest of videos, as for `read_dataset`; also one video, or a folder of videos without
            class folders.
        annotations: The folder of the official annotations, as for `read_dataset`.
        split: The number of the split, where there are several.
        recipe: The recipe whose clip length decides which videos are short, and whose training cost is estimated.
        needs_classes: Refuse videos without classes before any is decoded.

    Raises:
        UserError: The dataset cannot be read, it has no classes but needs some, or the recipe's network cannot be
            built.
    """
    dataset = _read(data, annotations, split)
    if needs_classes and not any(dataset.classes):
        raise UserError("expected videos with classes for --out, found none with a class; put them into class folders")
    log.info(_describe(dataset))
    identity = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    scan = scan_files([item.path for item in dataset.items], default_folder() / "doctor" / f"{identity}.jsonl")
    clip_frames, fps = recipe.clip.num_frames, recipe.clip.fps
    problems = find_problems(dataset.items, scan.info, scan.near_duplicates, clip_frames, dataset.missing, fps=fps)
    cost = None
    if any(item.label for item in dataset.items):
        log.info("timing training steps of %s", recipe.model.name)
        cost = estimate_cost(recipe, dataset.items, scan.info, choose_device())
    return Examination(str(data), dataset, scan.info, problems, clip_frames, cost)


def write_clean_manifest(path: Path, examination: Examination) -> str:
    """Write a manifest of the usable videos, with paths relative to its folder.

    Args:
        path: The file, which is created with its folder.
        examination: The dataset.

    Returns:
        One line: how many videos were kept and left out.

    Raises:
        UserError: No usable video is left, or the videos have no classes.
    """
    items = examination.dataset.items
    kept = usable_items(items, examination.problems)
    if not kept or not all(item.label for item in kept):
        raise UserError(f"expected usable videos with classes for {path}, found {'no classes' if kept else 'none'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _manifest(kept, path.parent.resolve()))
    unusable = {problem.item for problem in examination.problems if problem.kind in UNUSABLE}
    flawed = {problem.item for problem in examination.problems if problem.kind in ("short", "damaged")} - unusable
    n_dropped = len(items) - len(kept)
    return f"{path}: {len(kept)} videos, {len(flawed)} of them short or damaged; {n_dropped} unusable videos left out"


def _manifest(items: Sequence[VideoItem], folder: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split", "group"))
    writer.writerows((_relative(i.path, folder), i.label, i.split or "", i.group or "") for i in items)
    return text.getvalue()


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # a relative path to another drive of Windows does not exist
        return path.resolve().as_posix()


def _read(data: Path, annotations: Path | None, split: int) -> VideoFiles:
    """Read a dataset of video files; also one video, or a folder without class folders, whose videos get no label."""
    folder = data.is_dir() and not (data / MANIFEST).is_file()
    flat = folder and not any(p.is_dir() and not p.name.startswith(".") for p in data.iterdir())
    video = data.is_file() and data.suffix.lower() != ".csv"
    if annotations is None and (flat or video) and not is_shards(str(data)):
        return VideoFiles(tuple(VideoItem(path, "") for path in find_sources([str(data)])), "files without classes")
    return read_video_files(data, annotations, split)


def _describe(dataset: VideoFiles) -> str:
    return dataset.describe() if any(dataset.classes) else f"{len(dataset.items)} files without classes"


def _file_entry(item: VideoItem, info: VideoInfo) -> dict[str, Any]:
    """Return what the JSON says of one video: its place in the dataset and the description of its file."""
    described = {key: value for key, value in asdict(info).items() if key not in ("path", "signature")}
    return {"path": str(item.path), "label": item.label, "split": item.split, "group": item.group} | described
