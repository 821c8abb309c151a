"""Growth of time and memory with frames, pixels, width, batch size, number of splits, and number of videos.

    python benchmarks/cost.py ../shared/data/ucf101-18

Forward passes of MSF-R3D+FSAM and R3D-18 in eager PyTorch. One quantity varies at a time; the others are those of the
paper (8 frames of 112x112 px, width 1, 4 splits) with a batch size of 2. The points of a curve are timed alternately,
in as many rounds as the time budget allows. Memory is the peak memory of a forward pass minus the weights, measured in
its own process. `predict` runs a small network on 10 to 200 videos. The results are benchmarks/cost.md,
docs/assets/cost.png, and the table in docs/cost.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does; read when torch is imported

import numpy as np
import torch
from matplotlib.figure import Figure

from msfnet.bench.cases import Case, Conditions, prepare, working_bytes
from msfnet.bench.memory import growth_bytes
from msfnet.bench.networks import find_network
from msfnet.bench.timing import time_alternately
from msfnet.data.annotations.readers import read_dataset
from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import Checkpoint, save_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.report import INK, VAL_COLOR, to_png

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
DOCS = Path(__file__).parent.parent / "docs"
NETWORKS = {"MSF-R3D+FSAM": "msf_r3d_18_fsam", "R3D-18": "r3d_18"}
COLORS = {"MSF-R3D+FSAM": VAL_COLOR, "R3D-18": "#d9822b"}
SWEEP_SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 40, 3, 7
TINY, TINY_SETTINGS = "msf_r3d_18_fsam", ("model.width_mult=0.25", "clip.crop_size=56", "clip.views=1x1")


@dataclass(frozen=True)
class Sweep:
    """A quantity that varies, and the powers of it in which time and memory should be linear; 0: none is expected."""

    name: str
    values: Sequence[float]
    powers: tuple[int, int] = (1, 1)
    networks: Sequence[str] = tuple(NETWORKS)


SWEEPS = (
    Sweep("frames", (4, 8, 16, 32)),
    Sweep("frame side", (56, 80, 112, 160, 224), (2, 2)),
    Sweep("width", (0.25, 0.5, 0.75, 1.0), (2, 1)),
    Sweep("batch size", (1, 2, 4, 8, 16)),
    Sweep("splits S", (2, 3, 4, 6, 8), (0, 0), ("MSF-R3D+FSAM",)),
)
ARGUMENTS = {"frames": "num_frames", "frame side": "img_size", "width": "width_mult", "splits S": "num_splits"}
VIDEOS = Sweep("videos", (10, 25, 50, 100, 200), networks=("MSF-R3D+FSAM",))


@dataclass(frozen=True)
class Curve:
    """Measurements of one network over the values of a sweep."""

    sweep: Sweep
    network: str
    seconds: Sequence[float]  # medians
    spreads: Sequence[tuple[float, float]]  # minimum and maximum seconds
    mebibytes: Sequence[float]
    rounds: int


@dataclass(frozen=True)
class Fit:
    """A least-squares line, its R², and the exponent of the best-fitting power law."""

    slope: float
    offset: float
    r2: float
    exponent: float


def fit(x: Sequence[float], y: Sequence[float], power: int) -> Fit:
    """Fit y over x**power. The exponent also refers to x**power, so 1 means that y is proportional to it."""
    grown, found = np.asarray(x, float) ** power, np.asarray(y, float)
    slope, offset = np.polyfit(grown, found, 1)
    rest = ((found - slope * grown - offset) ** 2).sum()
    spread = ((found - found.mean()) ** 2).sum()
    exponent = np.polyfit(np.log(grown), np.log(found), 1)[0]
    return Fit(float(slope), float(offset), float(1 - rest / spread) if spread else 1.0, float(exponent))


# Networks


def case_of(sweep: Sweep, network: str, value: float) -> Case:
    kind = float if sweep.name == "width" else int
    own = {ARGUMENTS[sweep.name]: kind(value)} if sweep.name in ARGUMENTS else {}
    return Case(find_network(NETWORKS[network], own), "eager", "fp32")


def conditions_of(sweep: Sweep, value: float, base: Conditions) -> Conditions:
    return replace(base, batch_size=int(value)) if sweep.name == "batch size" else base


def measure_sweep(sweep: Sweep, base: Conditions) -> list[Curve]:
    points = [(network, value) for network in sweep.networks for value in sweep.values]
    calls: dict[tuple[str, float], Callable[[], None]] = {
        (network, value): prepare(case_of(sweep, network, value), conditions_of(sweep, value, base))
        for network, value in points
    }
    started = time.perf_counter()
    for call in calls.values():
        call()
    rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, int(SWEEP_SECONDS / (time.perf_counter() - started))))
    times = time_alternately(calls, rounds, min_seconds=0)
    calls.clear()
    memory = {
        (network, value): working_bytes(case_of(sweep, network, value), conditions_of(sweep, value, base)) / 2**20
        for network, value in points
    }
    curves = []
    for network in sweep.networks:
        own = [times[network, value] for value in sweep.values]
        spreads = [(t.quantile(0), t.quantile(1)) for t in own]
        mebibytes = [memory[network, value] for value in sweep.values]
        curves.append(Curve(sweep, network, [t.median_seconds for t in own], spreads, mebibytes, rounds))
    return curves


# Videos


def write_tiny_weights(folder: Path) -> Path:
    """Write a small network with random weights to a file."""
    recipe, file = load_recipe("paper", TINY_SETTINGS), folder / "weights.safetensors"
    model = create_model(TINY, 18, **recipe.model_kwargs())
    classes = tuple(map(str, range(18)))
    save_weights(file, Checkpoint(model, TINY, recipe.model_kwargs(), classes, recipe.preprocessing(), {}))
    return file


def predict_here(weights: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Seconds and bytes of recognizing the videos in this process, after the network has been loaded."""
    recognizer = Recognizer.load(weights, "cpu")
    seconds: list[float] = []

    def predict() -> None:
        started = time.perf_counter()
        for _ in recognizer.predict_many(paths):
            pass
        seconds.append(time.perf_counter() - started)

    grown = growth_bytes(predict)
    return {"seconds": seconds[0], "bytes": grown}


def measure_videos(data: Path, rounds: int) -> Curve:
    """Measure each number of videos in new processes, alternately."""
    found: dict[float, list[dict[str, Any]]] = {n: [] for n in VIDEOS.values}
    with tempfile.TemporaryDirectory() as folder:
        weights = write_tiny_weights(Path(folder))
        for _ in range(rounds):
            for n in VIDEOS.values:
                words = [sys.executable, __file__, str(data), "--predict", str(n), str(weights)]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                found[n].append(json.loads(done.stdout))
    seconds = [[run["seconds"] for run in runs] for runs in found.values()]
    mebibytes = [median(run["bytes"] for run in runs) / 2**20 for runs in found.values()]
    spreads = [(min(s), max(s)) for s in seconds]
    return Curve(VIDEOS, VIDEOS.networks[0], [median(s) for s in seconds], spreads, mebibytes, rounds)


def choose_videos(data: Path, n: int) -> list[Path]:
    """`n` videos, evenly spaced over the dataset."""
    items = read_dataset(data).items
    return [items[int(i * len(items) / n)].path for i in range(n)]


# Pages


def powered(sweep: Sweep, power: int) -> str:
    return sweep.name + ("²" if power == 2 else "")


def fits_table(curves: Sequence[Curve]) -> str:
    """A row for each curve: exponents and R² of time and memory."""
    rows = [
        "| network | time over | exponent | R² of a line | memory over | exponent | R² of a line |",
        "|---|---|---|---|---|---|---|",
    ]
    for curve in curves:
        if not any(curve.sweep.powers):
            continue
        cells = []
        for values, power in zip((curve.seconds, curve.mebibytes), curve.sweep.powers, strict=True):
            found = fit(curve.sweep.values, values, power)
            flat = abs(found.exponent) < 0.1  # R² is meaningless where there is no growth to explain
            cells.append(
                f"{powered(curve.sweep, power)} | {found.exponent:.2f} | {'flat' if flat else f'{found.r2:.4f}'}"
            )
        rows.append(f"| {curve.network} | {' | '.join(cells)} |")
    return "\n".join(rows)


def points_table(curves: Sequence[Curve]) -> str:
    """A row for each point."""
    rows = ["| | | network | ms, median (range) | rounds | memory, MiB |", "|---|---|---|---|---|---|"]
    for curve in curves:
        for i, value in enumerate(curve.sweep.values):
            least, most = (1000 * s for s in curve.spreads[i])
            rows.append(
                f"| {curve.sweep.name} | {value:g} | {curve.network} | {1000 * curve.seconds[i]:,.0f} "
                f"({least:,.0f} to {most:,.0f}) | {curve.rounds} | {curve.mebibytes[i]:,.0f} |"
            )
    return "\n".join(rows)


def summarize(curves: Sequence[Curve], threads: int) -> str:
    return "\n".join(
        [
            "# Cost curves",
            "",
            f"Printed by `python benchmarks/cost.py DATA`: forward passes in eager fp32, threads: {threads}. The fixed",
            "quantities are 8 frames of 112x112 px, width 1, batch size 2, and 4 splits. Videos: `predict` with width",
            "0.25, 56 px, and one view. An exponent of 1 means proportional growth. Memory excludes the weights.",
            "",
            fits_table(curves),
            "",
            "![Time and memory of the networks for each of the quantities](../docs/assets/cost.png)",
            "",
            points_table(curves),
            "",
            provenance("torch", "av", "numpy"),
            "",
        ]
    )


def plot(curves: Sequence[Curve]) -> Figure:
    """A column for each sweep, time above memory. Quantities expected to be linear in a power are drawn over it."""
    names = list(dict.fromkeys(curve.sweep.name for curve in curves))
    figure = Figure(figsize=(2.6 * len(names), 5), layout="constrained")
    grid = figure.subplots(2, len(names), squeeze=False)
    for curve in curves:
        for row, (values, power) in enumerate(zip((curve.seconds, curve.mebibytes), curve.sweep.powers, strict=True)):
            axes = grid[row, names.index(curve.sweep.name)]
            x = np.asarray(curve.sweep.values, float) ** (power or 1)
            color = COLORS[curve.network]
            axes.plot(x, values, "o", color=color, markersize=4, label=curve.network)
            if power:
                line = fit(curve.sweep.values, values, power)
                axes.plot(x, line.slope * x + line.offset, color=color, linewidth=1)
            if row == 0:
                axes.vlines(x, *zip(*curve.spreads, strict=True), color=color, linewidth=1)
            axes.set_xlabel(powered(curve.sweep, power), color=INK)
    for axes in grid.flat:  # after all curves are drawn: setting limits disables autoscaling
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
    for row, name in enumerate(("seconds", "memory (MiB)")):
        grid[row, 0].set_ylabel(name)
    grid[0, 0].legend(frameon=False, fontsize=8)
    return figure


def fill(page: str, table: str) -> str:
    """The text of docs/cost.md with its table replaced."""
    pattern = r"(<!-- cost: [^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{table}\n{m[2]}", page, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--predict", nargs=2, metavar=("N", "WEIGHTS"), help="only run predict on N videos, and print seconds and bytes"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds over the videos")
    parser.add_argument("--out", type=Path, help="folder for cost.md and cost.png; default: benchmarks/ and docs/")
    a = parser.parse_args()
    if a.predict:
        print(json.dumps(predict_here(Path(a.predict[1]), choose_videos(a.data, int(a.predict[0])))))
        return
    base = Conditions(batch_size=2, train=False, threads=torch.get_num_threads(), device="cpu")
    curves = []
    for sweep in SWEEPS:
        print(f"{sweep.name}: {', '.join(map(str, sweep.values))}", file=sys.stderr, flush=True)
        curves += measure_sweep(sweep, base)
    print("videos", file=sys.stderr, flush=True)
    curves.append(measure_videos(a.data, a.repeats))
    text = summarize(curves, base.threads)
    (a.out / "cost.md" if a.out else RESULT).write_text(text, encoding="utf-8")
    (a.out / "cost.png" if a.out else DOCS / "assets" / "cost.png").write_bytes(to_png(plot(curves)))
    if not a.out:
        page = DOCS / "cost.md"
        page.write_text(fill(page.read_text(encoding="utf-8"), fits_table(curves)), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
