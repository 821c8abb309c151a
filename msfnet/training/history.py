"""The files of a run folder: what is written before, during and after training, and read back to go on.

recipe.toml, split.csv, environment.json, metrics.csv, weights.safetensors (best), last/ (to resume), scores.json and
report.html. Each is whole or not there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from filelock import FileLock, Timeout

from msfnet import __version__
from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import Listing, read_manifest
from msfnet.data.shards.index import ShardIndex, absolute, read_shards
from msfnet.inference.evaluation import RECIPE, SPLIT
from msfnet.models.checkpoint import WEIGHTS, Checkpoint, save_weights
from msfnet.recipe import Recipe, load_recipe
from msfnet.training.learner import TIMED
from msfnet.training.loop import CHECKPOINT, EpochRow
from msfnet.types import UserError, VideoItem

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

METRICS, ENVIRONMENT, SCORES = "metrics.csv", "environment.json", "scores.json"
LOCK = ".lock"
COLUMNS = (
    *("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "seconds"),
    *(f"{part}_seconds" for part in TIMED),
    "peak_memory_mib",
)
EXACT = ("train_loss", "train_top1", "val_loss", "val_top1")  # a resumed run compares with what it reads back


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make the folder this process's own while the block lasts, or until the process ends, however it does.

    Raises UserError when another process has it.
    """
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


def holds_run(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() or (folder / "last").exists()


def resume_hint(stop: KeyboardInterrupt, data: Path | str, folder: Path) -> str:
    """What to tell of a run on `data` that was stopped."""
    by = f"stopped by {stop}" if str(stop) else "stopped at once"
    if not holds_run(folder):
        return f"{by}, with nothing done"
    return f"{by}; go on with: msfnet train {data} --out {folder} --resume"


def can_resume(folder: Path) -> bool:
    return (folder / RECIPE).is_file() and (folder / "last" / CHECKPOINT).is_file()


def start_folder(folder: Path, recipe: Recipe, items: Sequence[VideoItem], shards: ShardIndex | None) -> None:
    """Make the folder and write down what is known before training."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SPLIT, _split_csv(items, shards))
    write_text(folder / ENVIRONMENT, json.dumps(_environment(recipe, items, shards), indent=2))
    write_text(folder / RECIPE, recipe.to_toml())


def read_folder(folder: Path) -> tuple[Recipe, Listing, ShardIndex | None]:
    """What a run began with. Raises UserError when there is nothing in the folder to go on from."""
    if not can_resume(folder):
        raise UserError(f"expected a run to resume in {folder}, found no saved state there; train without --resume")
    recipe = load_recipe(str(folder / RECIPE))
    environment = json.loads((folder / ENVIRONMENT).read_text("utf-8"))
    if not environment.get("shards"):
        return recipe, read_manifest(folder / SPLIT), None
    shards = read_shards(environment["shards"])
    if shards.fingerprint != environment["data_fingerprint"]:
        raise UserError(f"{shards.source} holds other shards than those that the run in {folder} began with")
    return recipe, shards.listing(), shards


def read_history(folder: Path) -> list[EpochRow]:
    """The rows of a run's metrics.csv; a number that an epoch does not have is left out."""
    with (folder / METRICS).open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


class History:
    """metrics.csv, row by row, and the best weights as they come: highest validation top-1, else the last epoch."""

    def __init__(self, folder: Path, weights: Checkpoint, epochs: int) -> None:
        self.folder, self.weights, self.epochs = folder, weights, epochs
        self.rows: list[EpochRow] = []
        self.started = time.monotonic()
        self.first = 0

    def keep(self, epochs: int) -> None:
        """Go on from so many epochs of the metrics.csv that is there."""
        self.rows = read_history(self.folder)[:epochs] if epochs else []
        self.first = len(self.rows)

    def add(self, row: EpochRow) -> None:
        best = max((r["val_top1"] for r in self.rows if "val_top1" in r), default=-1.0)
        if row.get("val_top1", 1.0) >= best:
            notes = {"version": __version__, "epoch": int(row["epoch"])}
            if "val_top1" in row:
                notes |= {"val_top1": row["val_top1"]}
            save_weights(self.folder / WEIGHTS, replace(self.weights, notes=notes))
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _written(key, value) for key, value in kept.items()} for kept in self.rows)
        write_text(self.folder / METRICS, text.getvalue())
        self._tell(row)

    def _tell(self, row: EpochRow) -> None:
        done = len(self.rows)
        per_epoch = (time.monotonic() - self.started) / (done - self.first)
        line = f"epoch {done:3d}/{self.epochs}  loss {row.get('train_loss', float('nan')):.3f}"
        line += f"  train {row.get('train_top1', 0):6.1%}"
        if "val_top1" in row:
            line += f"  val {row['val_top1']:6.1%}"
        log.info(f"{line}  {row['seconds']:.0f} s, {per_epoch * (self.epochs - done) / 60:.0f} min to go")


def _written(key: str, value: float) -> str:
    if key == "epoch":
        return str(int(value))
    return repr(float(value)) if key in EXACT else f"{value:.6g}"


def _split_csv(items: Sequence[VideoItem], shards: ShardIndex | None) -> str:
    """The split as a manifest of absolute paths, or of the names in the shards."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split", "group"))
    paths = [item.path.as_posix() if shards else str(item.path.resolve()) for item in items]
    writer.writerows((path, item.label, item.split, item.group or "") for path, item in zip(paths, items, strict=True))
    return text.getvalue()


def _environment(recipe: Recipe, items: Sequence[VideoItem], shards: ShardIndex | None) -> dict[str, Any]:
    """What is needed to tell two runs apart: versions, machine, commit, seed, data."""
    return {
        "msfnet": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "seed": recipe.train.seed,
        "videos": len(items),
        "shards": absolute(shards.source) if shards else None,
        "data_fingerprint": shards.fingerprint if shards else fingerprint(items),
    }


def fingerprint(items: Sequence[VideoItem]) -> str:
    """Of the videos' names, labels, splits and sizes, in any order."""
    described = sorted(f"{item.label}/{item.path.name} {item.split} {item.path.stat().st_size}" for item in items)
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def commit() -> str | None:
    """The commit of msfnet's own source, where it runs from a clone."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
