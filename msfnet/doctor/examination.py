"""The examination of a data set from its folder to its verdict: as text, as JSON, and as a manifest of what is good."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import MANIFEST, Listing, read_dataset
from msfnet.data.cache.frame_cache import default_folder
from msfnet.doctor.cost import TrainingCost, estimate_cost
from msfnet.doctor.file_info import VideoFacts
from msfnet.doctor.problems import KINDS, Problem, class_counts, find_problems, imbalance, worth_training_on
from msfnet.doctor.scan import Progress, check_files
from msfnet.inference.sources import find_sources
from msfnet.inference.views import best_device
from msfnet.recipe import Recipe
from msfnet.types import UserError, VideoItem

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examination:
    """A data set, the facts of its files, what is wrong with it and what training will cost (None: no classes)."""

    data: str
    listing: Listing
    facts: dict[Path, VideoFacts]
    problems: list[Problem]
    clip_frames: int
    cost: TrainingCost | None

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind that there is."""
        counted = Counter(problem.kind for problem in self.problems)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def to_dict(self) -> dict[str, Any]:
        items = self.listing.items
        files = [_entry(item, self.facts[item.path]) for item in items]
        return {
            "data": self.data,
            "source": self.listing.source,
            "n_videos": len(items),
            "n_frames": sum(found.frames for found in self.facts.values()),
            "duration_seconds": round(sum(found.duration_seconds for found in self.facts.values()), 1),
            "n_problems": len(self.problems),
            "counts": self.counts,
            "problems": [asdict(problem) for problem in self.problems],
            "clip_frames": self.clip_frames,
            "classes": class_counts(items),
            "imbalance": round(imbalance(items), 3),
            "cost": self.cost.to_dict() if self.cost else None,
            "files": files,
        }

    def to_text(self) -> str:
        """A line for each problem, then the data set in a few."""
        lines = [f"{p.kind}: {p.subject}: {p.reason}" for p in self.problems]
        return "\n".join([*lines, *([""] if lines else []), *self.summary()])

    def summary(self) -> list[str]:
        frames = sum(found.frames for found in self.facts.values())
        hours = sum(found.duration_seconds for found in self.facts.values()) / 3600
        lines = [f"{_describe(self.listing)}: {frames} frames, {hours:.2f} hours"]
        if self.cost:
            lines.append(f"the largest class has {imbalance(self.listing.items):.1f} times the videos of the smallest")
            lines.append(f"training: {self.cost.describe()}")
        counted = ", ".join(f"{n} {kind} ({KINDS[kind]})" for kind, n in self.counts.items())
        return [*lines, f"wrong: {counted}" if counted else "nothing is wrong"]


def examine(
    data: Path, annotations: Path | None, split: int, recipe: Recipe, *, needs_classes: bool = False
) -> Examination:
    """Decode every video of a data set and judge it. Interrupted and called again, it decodes only the rest.

    `data` may also be a video, or a folder of files without classes, unless the caller needs them. Raises UserError
    as `read_dataset` does.
    """
    listing = _read(data, annotations, split)
    if needs_classes and not any(listing.classes):
        raise UserError("expected videos with classes for --out, found files without; put them into class folders")
    log.info(_describe(listing))
    identity = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    with _progress() as progress:
        findings = check_files(
            [item.path for item in listing.items], default_folder() / "doctor" / f"{identity}.jsonl", progress=progress
        )
    if findings.known:
        log.info(f"{findings.known} files were examined before and have not changed since")
    clip_frames = recipe.clip.num_frames
    problems = find_problems(
        listing.items, findings.facts, findings.alike, clip_frames, listing.missing, fps=recipe.clip.fps
    )
    cost = None
    if any(item.label for item in listing.items):
        log.info(f"timing a training step of {recipe.model.name}")
        cost = estimate_cost(recipe, listing.items, findings.facts, best_device())
    return Examination(str(data), listing, findings.facts, problems, clip_frames, cost)


def write_clean_manifest(path: Path, examination: Examination) -> str:
    """Write the videos worth training on as a manifest, and say what was left out. Paths are relative to its folder.

    Raises UserError when nothing would be left.
    """
    items = examination.listing.items
    kept = worth_training_on(items, examination.problems)
    if not kept or not all(item.label for item in kept):
        raise UserError(
            f"expected videos with classes for {path}, found {'none' if kept else 'none worth training on'}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _manifest(kept, path.parent.resolve()))
    used = {problem.item for problem in examination.problems if problem.kind in ("short", "damaged")}
    part = sum(items[i] in kept for i in used if i is not None)
    return f"{path}: {len(kept)} videos; left out {len(items) - len(kept)}, kept {part} that are short or damaged"


def _manifest(items: Sequence[VideoItem], folder: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split", "group"))
    writer.writerows((_relative(i.path, folder), i.label, i.split or "", i.group or "") for i in items)
    return text.getvalue()


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _read(data: Path, annotations: Path | None, split: int) -> Listing:
    """As `read_dataset`, and also a lone video, or a folder of files without class folders: all without a label."""
    folder = data.is_dir() and not (data / MANIFEST).is_file()
    flat = folder and not any(p.is_dir() and not p.name.startswith(".") for p in data.iterdir())
    video = data.is_file() and data.suffix.lower() != ".csv"
    if annotations is None and (flat or video):
        return Listing(tuple(VideoItem(path, "") for path in find_sources([str(data)])), "files without classes")
    return read_dataset(data, annotations, split)


def _describe(listing: Listing) -> str:
    return listing.describe() if any(listing.classes) else f"{len(listing.items)} files without classes"


def _entry(item: VideoItem, facts: VideoFacts) -> dict[str, Any]:
    """What the JSON says of one video: its place in the data set and its facts."""
    own = {key: value for key, value in asdict(facts).items() if key not in ("path", "signature")}
    return {"path": str(item.path), "label": item.label, "split": item.split, "group": item.group} | own


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line at every tenth."""
    if not sys.stderr.isatty():
        said: Counter[str] = Counter()

        def tell(what: str, done: int, total: int) -> None:
            if total and done * 10 // total > said[what]:
                said[what] = done * 10 // total
                log.info(f"{what}: {done} of {total}")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def draw(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield draw
