"""Names, locks, writes and reads the files of a run folder: the only module that knows their names and formats.

It imports no torch, so that a wrong path is refused before seconds are spent on that import. What needs torch or a
dataset to be written or read (weights, the checkpoint, the recipe, the page) is written elsewhere, under these names.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from msfnet.atomic_io import write_text
from msfnet.types import EvalResult, UserError, VideoItem

log = logging.getLogger(__name__)

RECIPE = "recipe.toml"  # the recipe with every key
SPLIT = "split.csv"  # a row for each video, see `RecordedVideo`
ENVIRONMENT = "environment.json"  # versions, machine, commit, seed, and where the videos are
METRICS = "metrics.csv"  # a row for each epoch, see `COLUMNS`
WEIGHTS = "weights.safetensors"  # the weights of the best epoch
CHECKPOINT = "last/checkpoint.pt"  # the state to resume from
SCORES = "scores.json"  # the result on the test videos
UNREADABLE = "unreadable.json"  # path of a video -> the reason
REPORT = "report.html"
LOGS = "logs"  # a folder with the event files of TensorBoard and of other trackers
FINISHED, LOG = "finished.json", "log.txt"  # only in runs of sweeps and reproductions
LOCK = ".lock"

BUNDLED = "msfnet_ucf101_18"  # name of the weights that come with the package
BUNDLED_FILE = Path(__file__).parent / "weights" / f"{BUNDLED}.safetensors"

# Parts of an epoch in metrics.csv: waiting for data, copying it to the device, augmentation, forward pass, backward
# pass with the optimizer's step, and reading videos in all worker processes, most of it while the network computes.
TIMED_PARTS = ("data", "h2d", "augment", "forward", "backward", "worker")
EXACT_COLUMNS = ("train_loss", "train_top1", "val_loss", "val_top1")  # a resumed run compares with what it reads back
COLUMNS = ("epoch", "lr", *EXACT_COLUMNS, "seconds", *(f"{part}_seconds" for part in TIMED_PARTS), "peak_memory_mib")

EpochRow = dict[str, float]  # a row of metrics.csv by its columns, those left out that an epoch has no value for


@dataclass(frozen=True)
class RecordedVideo:
    """A row of split.csv: one video as it was when the run started."""

    path: str  # below the folder `data_root` of environment.json, with "/"; in shards, the name there
    label: str
    split: str  # train, val or test
    group: str
    fingerprint: str  # fingerprint of the file's content; empty for a video in shards

    def to_item(self, root: Path) -> VideoItem:
        """Return the video as an item of a dataset in the folder `root`."""
        return VideoItem(root / self.path, self.label, self.split, self.group or None)


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not. Every attribute but `folder` is read from the files when it is accessed.

    A damaged file raises UserError, in one line that names it.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """The file with the weights of the best epoch."""
        return self.folder / WEIGHTS

    @property
    def result(self) -> EvalResult | None:
        """The scores on the test videos; None for a run without test videos or before its evaluation."""
        values = _read_json(self.folder / SCORES)
        return EvalResult.from_dict(values) if values is not None else None

    @property
    def history(self) -> list[EpochRow]:
        """The rows of metrics.csv, one for each finished epoch."""
        file = self.folder / METRICS
        if not file.is_file():
            return []
        try:
            rows = [{key: float(value) for key, value in row.items() if value} for row in _read_csv(file)]
        except (ValueError, csv.Error) as error:
            raise UserError(f"expected numbers in {file}, found a damaged file ({error})") from error
        if not all("epoch" in row for row in rows):
            raise UserError(f"expected the column epoch in {file}, found a row without it")
        return rows

    @property
    def unreadable(self) -> dict[str, str]:
        """The videos that could not be read, in training or in evaluation, with the reasons."""
        return _read_json(self.folder / UNREADABLE) or {}

    @property
    def environment(self) -> dict[str, Any]:
        """What environment.json says of versions, machine and data; empty without the file."""
        return _read_json(self.folder / ENVIRONMENT) or {}

    @property
    def split(self) -> list[RecordedVideo]:
        """The videos that the run started with, in order."""
        file = self.folder / SPLIT
        if not file.is_file():
            raise UserError(f"expected a run in {self.folder}, found no {SPLIT} there; name a run folder")
        try:
            names = [field.name for field in fields(RecordedVideo)]
            return [RecordedVideo(**{name: row[name] for name in names}) for row in _read_csv(file)]
        except (KeyError, csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"expected the split of a run in {file}, found a damaged file ({error})") from error


# Locking


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder while the block runs; the lock ends with the process, if killed.

    Args:
        folder: The run folder, which is created.

    Raises:
        UserError: Another process holds the lock.
    """
    from filelock import FileLock, Timeout  # here: prediction starts without it

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is writing to {folder}; wait for it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


# State of a folder


def holds_run(folder: Path) -> bool:
    """Return whether a run has saved anything in the folder that another one would overwrite."""
    return (folder / WEIGHTS).exists() or (folder / CHECKPOINT).exists()


def can_resume(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint and the recipe that it belongs to."""
    return (folder / RECIPE).is_file() and (folder / CHECKPOINT).is_file()


def require_run(folder: Path) -> Run:
    """Return the run in a folder that has finished an epoch.

    Raises:
        UserError: The folder holds no such run.
    """
    if missing := [name for name in (RECIPE, METRICS) if not (folder / name).is_file()]:
        raise UserError(f"expected a run in {folder}, found no {missing[0]} there; name a run folder")
    return Run(folder)


def resume_command(folder: Path) -> str:
    """Return the command that continues a run."""
    return f"msfnet train --resume {shlex.quote(str(folder))}"


# Writing


def write_split(folder: Path, videos: Iterable[RecordedVideo]) -> None:
    """Write split.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(RecordedVideo)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(video) for video in videos)
    write_text(folder / SPLIT, text.getvalue())


def write_environment(folder: Path, values: Mapping[str, Any]) -> None:
    """Write environment.json."""
    _write_json(folder / ENVIRONMENT, values)


def write_history(folder: Path, rows: Sequence[EpochRow]) -> None:
    """Write metrics.csv: losses and accuracies exactly, times and memory with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _format_cell(key, value) for key, value in row.items()} for row in rows)
    write_text(folder / METRICS, text.getvalue())


def write_result(folder: Path, result: EvalResult) -> None:
    """Write scores.json."""
    _write_json(folder / SCORES, result.to_dict())


def write_unreadable(folder: Path, unreadable: Mapping[str, str]) -> None:
    """Write unreadable.json."""
    _write_json(folder / UNREADABLE, unreadable)


def _format_cell(column: str, value: float) -> str:
    if column == "epoch":
        return str(int(value))
    return repr(float(value)) if column in EXACT_COLUMNS else f"{value:.6g}"


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(values, indent=2, ensure_ascii=False))


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is no file."""
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:  # UnicodeDecodeError included
        raise UserError(f"expected JSON in {file}, found a damaged file ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object in {file}, found a {type(values).__name__}")
    return values


def _read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    if any(None in row or None in row.values() for row in rows):  # what DictReader makes of surplus and missing values
        raise csv.Error("a row with another number of values than columns")
    return rows


# Which videos a run has used


def recorded_splits(
    folder: Path, items: Sequence[VideoItem], fingerprint: Callable[[Path], str]
) -> list[frozenset[str]]:
    """Return the splits in which a run used each of some videos, wherever these have been moved since.

    A video is recognized by its content, under any name, and by the place where the run read it. Where the content is
    not known, as in shards, it is recognized by its path below the dataset. So are all videos if none is recognized
    otherwise and most have such a path: a dataset that was moved and encoded again must not pass for unseen videos. A
    warning says so.

    Args:
        folder: The run folder. Without a split.csv, it used none of them.
        items: The videos of any dataset.
        fingerprint: What `data.cache.content.fingerprint` is: content of a file, as recorded in split.csv.

    Returns:
        A set for each item, of train, val and test; empty for a video that the run did not use. It has several splits
        where the run used copies of one video in several.
    """
    if not (folder / SPLIT).is_file():
        return [frozenset() for _ in items]
    run = Run(folder)
    root = run.environment.get("data_root")
    by_content, by_place, by_path = defaultdict(set), defaultdict(set), defaultdict(set)
    for video in run.split:
        if video.fingerprint:
            by_content[video.fingerprint].add(video.split)
        if root:
            by_place[normalized(Path(root) / video.path)].add(video.split)
        by_path[video.path].add(video.split)

    def at_path(item: VideoItem) -> set[str]:
        parts = item.path.parts
        return set().union(*(by_path.get("/".join(parts[i:]), set()) for i in range(len(parts))))

    def splits(item: VideoItem) -> frozenset[str]:
        content = _content(item.path, fingerprint)
        found = by_content.get(content, set()) | by_place.get(normalized(item.path), set())
        return frozenset(found if content and by_content else found | at_path(item))

    found = [splits(item) for item in items]
    encoded_again = [] if any(found) else [frozenset(at_path(item)) for item in items]
    if 2 * sum(map(bool, encoded_again)) <= len(items):
        return found
    log.warning(f"most videos have the paths, but not the content, of videos of {folder}: taken as encoded again")
    return encoded_again


def normalized(path: Path) -> Path:
    """Return an absolute path without "..", in which links are kept: those of a dataset are part of its layout."""
    return Path(os.path.normpath(path.absolute()))


def _content(path: Path, fingerprint: Callable[[Path], str]) -> str:
    """Return the fingerprint of a file, empty where it cannot be read, as that of a video in shards."""
    try:
        return fingerprint(path)
    except OSError:
        return ""


# Weights


def resolve_weights(weights: Path) -> Path:
    """Return the file that a user means by WEIGHTS.

    Args:
        weights: A weights file, an exported file, a run folder (its best weights) or the name of the bundled weights.

    Raises:
        UserError: There is no such file.
    """
    if str(weights) == BUNDLED and not weights.exists():
        return BUNDLED_FILE
    file = weights / WEIGHTS if weights.is_dir() else weights
    if not file.is_file():
        raise UserError(f"expected weights (.safetensors), a run folder or an exported file, found none at {file}")
    return file
