"""Memory of a training process and its workers over 20 epochs, to detect leaks.

    python benchmarks/data/memory.py ../shared/data/ucf101-18

A tiny network is trained on a few hundred videos in a separate process, whose memory is sampled from outside (Linux
only). The measure is the proportional set size, which counts pages shared by several processes once. The results are
benchmarks/data/memory.md and memory.png.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from provenance import provenance, spread

from msfnet.data.annotations.readers import read_dataset
from msfnet.report import INK, TRAIN_COLOR, VAL_COLOR, to_png
from msfnet.run_folder import METRICS

RESULT = Path(__file__).with_suffix(".md")
SAMPLE_SECONDS = 0.25
WARM_EPOCHS = 3  # libraries load, the cache fills, and buffers grow; these epochs do not count for the slope
WORKERS = 2
TINY = ("model.name=r3d_18", "model.width_mult=0.0625", f"data.num_workers={WORKERS}", "data.val_fraction=0")


@dataclass(frozen=True)
class Sample:
    """One sample: finished epochs, and memory of the training process and of all its workers together."""

    epochs: int
    trainer_mib: float
    workers_mib: float

    @property
    def total_mib(self) -> float:
        return self.trainer_mib + self.workers_mib


def write_manifest(data: Path, most: int, path: Path) -> int:
    """Write an evenly spaced subset of the training videos of split 1; returns their number."""
    items = [item for item in read_dataset(data).items if item.split == "train"]
    chosen = items[:: max(1, -(-len(items) // most))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        writer.writerows((item.path.resolve(), item.label, "train", item.group or "") for item in chosen)
    return len(chosen)


def watch(manifest: Path, folder: Path, epochs: int) -> list[Sample]:
    """Train on the manifest and sample the processes from the first finished epoch to the last."""
    settings = [*TINY, f"train.epochs={epochs}", f"data.cache={folder}/cache"]
    command = [
        sys.executable,
        "-m",
        "msfnet",
        "train",
        str(manifest),
        "--recipe",
        "small",
        "--out",
        str(folder / "run"),
    ]
    command += [part for setting in settings for part in ("--set", setting)]
    samples = []
    process = subprocess.Popen(command)
    while process.poll() is None:
        done = epochs_done(folder / "run" / METRICS)
        if 0 < done < epochs:
            try:
                workers_mib = sum(resident_mib(child) for child in descendants(process.pid))
                samples.append(Sample(done, resident_mib(process.pid), workers_mib))
            except (FileNotFoundError, ProcessLookupError):  # a worker has ended in the meantime
                pass
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"training ended with {process.returncode}")
    return samples


def epochs_done(metrics: Path) -> int:
    return max(0, len(metrics.read_text().splitlines()) - 1) if metrics.exists() else 0


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def epoch_medians(samples: Sequence[Sample]) -> dict[int, float]:
    """Epoch number -> median MiB of all processes. The first epoch is omitted: sampling starts late in it."""
    numbers = sorted({sample.epochs for sample in samples})
    return {n + 1: median(s.total_mib for s in samples if s.epochs == n) for n in numbers}


def slope(medians: dict[int, float]) -> tuple[float, float]:
    """MiB per epoch after the warm-up epochs, by least squares, and the standard error."""
    epochs, mib = (np.array(values, float) for values in zip(*medians.items(), strict=True))
    epochs, mib = epochs[epochs > WARM_EPOCHS], mib[epochs > WARM_EPOCHS]
    fit = np.polynomial.Polynomial.fit(epochs, mib, 1).convert()
    spread_epochs = ((epochs - epochs.mean()) ** 2).sum()
    error = np.sqrt(((mib - fit(epochs)) ** 2).sum() / max(1, len(mib) - 2) / spread_epochs)
    return float(fit.coef[1]), float(error)


def plot(samples: Sequence[Sample]) -> bytes:
    """Plot memory over epochs, with the samples of an epoch evenly spaced within it."""
    places = []
    for number in sorted({sample.epochs for sample in samples}):
        n_samples = sum(sample.epochs == number for sample in samples)
        places += (number + (np.arange(n_samples) + 0.5) / n_samples).tolist()
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    curves = {
        "all": ([s.total_mib for s in samples], INK),
        "training process": ([s.trainer_mib for s in samples], VAL_COLOR),
        f"its {WORKERS} workers": ([s.workers_mib for s in samples], TRAIN_COLOR),
    }
    for name, (mib, color) in curves.items():
        axes.plot(places, mib, color=color, label=name)
    axes.set(xlabel="epochs", ylabel="MiB", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return to_png(figure)


def summarize(samples: Sequence[Sample], epochs: int, n_videos: int) -> str:
    medians = epoch_medians(samples)
    per_epoch, error = slope(medians)
    later = [mib for epoch, mib in medians.items() if epoch > WARM_EPOCHS]
    return "\n".join(
        [
            f"# Memory over {epochs} epochs",
            "",
            f"Printed by `python benchmarks/data/memory.py DATA`: recipe `small` on {n_videos} videos with",
            f"`{' '.join(TINY)}`; {len(samples)} samples of the",
            "proportional set size of the training process and its workers.",
            "",
            f"- Slope after epoch {WARM_EPOCHS}: {per_epoch:+.2f} ± {error:.2f} MiB per epoch (standard error).",
            f"- Median (and range) over {len(later)} epochs: {spread(later)} MiB.",
            "",
            "![Memory of the training process and its workers](memory.png)",
            "",
            provenance("torch", "lightning", "av", "numpy"),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--videos", type=int, default=300, help="approximate maximum number of videos")
    parser.add_argument("--out", type=Path, default=RESULT)
    a = parser.parse_args()
    if a.epochs < WARM_EPOCHS + 2:
        parser.error(f"expected --epochs of {WARM_EPOCHS + 2} or more, found {a.epochs}")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "videos.csv"
        n_videos = write_manifest(a.data, a.videos, manifest)
        samples = watch(manifest, Path(folder), a.epochs)
    text = summarize(samples, a.epochs, n_videos)
    a.out.with_suffix(".png").write_bytes(plot(samples))
    a.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
