"""What each ingredient of recipe `best` is worth, on groups held out of the training videos: no test video is touched.

    python benchmarks/best.py ../shared/data/ucf101-18 --out /tmp/best

Each run is `msfnet train MANIFEST --recipe small --set ...` in a process of its own, where MANIFEST lists the training
videos of split 1, a quarter of their groups as those to score. Runs that are finished are kept and unfinished ones go
on, so the command can be stopped and typed again. `--only` names the rows to run. The result is benchmarks/best.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from msfnet.data.listing.annotations import read_data
from msfnet.data.splits import hold_out

RESULT = Path(__file__).with_suffix(".md")
HELD_OUT, HELD_OUT_SEED = 0.25, 0

# Small enough for an hour or two of a laptop: what all rows share beside recipe `small`.
SCALE = ("data.size=48", "train.epochs=20", "data.workers=0", "data.cache_gb=16")
DENSE = ("data.train_sampling=dense", "data.sampling=centred")


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe that differs from another line's by `sets`."""

    on: str | None
    sets: tuple[str, ...]


ROWS = {
    "small": Row(None, ()),
    "dense": Row("small", (*DENSE, "data.interval=2")),
    "difference": Row("small", ("data.input=difference",)),
    "dense difference": Row("small", (*DENSE, "data.interval=1", "data.input=difference")),
    "dense both": Row("small", (*DENSE, "data.interval=1", "data.input=rgb+difference")),
}


def overrides(name: str) -> tuple[str, ...]:
    """All that a row sets, what it stands on first."""
    row = ROWS[name]
    return (overrides(row.on) if row.on else SCALE) + row.sets


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.replace(' ', '-').replace('+', '-')}-{seed}"


def write_manifest(data: Path, path: Path) -> None:
    """The training videos of split 1, those of the held-out groups as its test split."""
    items = [item for item in read_data(data, None, 1).items if item.split == "train"]
    held = hold_out(items, HELD_OUT, HELD_OUT_SEED)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for item in items:
            writer.writerow((item.path.resolve(), item.label, "test" if item in held else "train", item.group))


def run(manifest: Path, folder: Path, name: str, seed: int, threads: int) -> None:
    """One training run, resumed if it was interrupted; its output goes to a log beside the folder."""
    if (folder / "scores.json").exists():
        return
    command = [sys.executable, "-m", "msfnet", "train", str(manifest), "--recipe", "small", "--out", str(folder)]
    for override in (*overrides(name), f"train.seed={seed}"):
        command += ["--set", override]
    if (folder / "last").exists():
        command.append("--resume")
    with folder.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to run; all by default")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    manifest = a.out / "manifest.csv"
    write_manifest(a.data, manifest)
    jobs = [(name, seed) for seed in range(a.seeds) for name in a.only]
    with ThreadPoolExecutor(a.parallel) as pool:
        list(pool.map(lambda job: run(manifest, folder_of(a.out, *job), *job, a.threads), jobs))


if __name__ == "__main__":
    main()
