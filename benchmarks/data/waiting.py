"""Share of a training epoch spent waiting for data: recipe `small`, starting with an empty cache.

    GOMP_SPINCOUNT=1000 python benchmarks/data/waiting.py ../shared/data/ucf101-18

Trains on the training videos of split 1, once without workers and once with two, each with its own empty cache folder.
The shares come from metrics.csv; a run's report shows them as well. GOMP_SPINCOUNT keeps idle threads from spinning, as
the command line does. The result is benchmarks/data/waiting.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from provenance import provenance, spread

from msfnet.data.annotations.readers import read_video_files
from msfnet.data.video_files import VideoFiles
from msfnet.recipe import load_recipe
from msfnet.run_folder import EpochRow, Run
from msfnet.training.trainer import train

RESULT = Path(__file__).with_suffix(".md")
WORKERS = (0, 2)
PARTS = ("data", "h2d", "augment", "forward", "backward")
TARGET = 3  # maximum % of waiting in an epoch that reads from the cache


def run(files: VideoFiles, workers: int, epochs: int) -> list[EpochRow]:
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"train.epochs={epochs}", f"data.num_workers={workers}", f"data.cache={folder}/cache"]
        train(files, load_recipe("small", settings), Path(folder) / "run")
        return Run(Path(folder) / "run").history


def percent(row: EpochRow, part: str) -> float:
    return 100 * row[f"{part}_seconds"] / sum(row[f"{name}_seconds"] for name in PARTS)


def summarize(runs: dict[int, list[EpochRow]], n_videos: int) -> str:
    lines = [
        "# Share of training time spent waiting for data",
        "",
        f"Printed by `python benchmarks/data/waiting.py DATA`: recipe `small` on {n_videos:,} videos, on a "
        f"{'GPU' if torch.cuda.is_available() else 'CPU'}; epoch 1 decodes",
        "the videos and fills the cache; the others read from it. Shares in % of the time of all steps of an epoch:",
        "waiting for data, host-to-device transfer (h2d), augmentation, forward and backward pass.",
        "",
        f"| workers | epoch | seconds | {' | '.join(PARTS)} |",
        f"|---|---|---|{'---|' * len(PARTS)}",
    ]
    for workers, rows in runs.items():
        for row in rows:
            shares = " | ".join(f"{percent(row, part):.1f}" for part in PARTS)
            lines.append(f"| {workers} | {row['epoch']:.0f} | {row['seconds']:.1f} | {shares} |")
    lines.append("")
    for workers, rows in runs.items():
        shares = [percent(row, "data") for row in rows[1:]]
        lines.append(
            f"- {workers} workers: {spread(shares, 1)}% of the time of {len(shares)} cached epochs is waiting."
        )
    lines += ["", f"Target: under {TARGET}% in cached epochs.", "", provenance("torch", "lightning", "av", "numpy")]
    return "\n".join(lines) + "\n"


def training_videos(data: Path, most: int | None = None) -> VideoFiles:
    """The training videos of split 1, or an evenly spaced subset of `most` of them."""
    files = read_video_files(data)
    items: Sequence = files.in_split("train")
    step = len(items) / min(most or len(items), len(items))
    chosen = tuple(items[int(i * step)] for i in range(round(len(items) / step)))
    return files.with_items(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--videos", type=int, help="number of videos to train on; default: all")
    parser.add_argument("--out", type=Path, default=RESULT)
    a = parser.parse_args()
    listing = training_videos(a.data, a.videos)
    text = summarize({workers: run(listing, workers, a.epochs) for workers in WORKERS}, len(listing.items))
    a.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
