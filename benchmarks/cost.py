"""How time and memory grow with frames, pixels, width, batch, groups and number of videos.

    python benchmarks/cost.py ../shared/data/ucf101-18

Forward passes of MSF-R3D+FSAM and R3D-18 in eager PyTorch: one quantity grows at a time, the others stay those of the
paper (8 frames of 112x112 px, width 1, 4 groups) and 2 clips. The points of a curve are timed in turn, as many rounds
as the time allows. Memory is the most that is held while a network runs, beyond its weights, each in a process of its
own. `predict` of a small network takes 10 to 200 videos. It writes benchmarks/cost.md, docs/assets/cost.png and the
table of docs/cost.md.
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

from msfnet.bench.cases import Case, Conditions, ready, working_bytes
from msfnet.bench.memory import growth_bytes
from msfnet.bench.networks import find_network
from msfnet.bench.timing import time_in_turn
from msfnet.data.annotations.readers import read_data
from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import Weights, save_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.report import INK, VAL_COLOUR, to_png

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
DOCS = Path(__file__).parent.parent / "docs"
NETWORKS = {"MSF-R3D+FSAM": "msf_r3d18_fsam", "R3D-18": "r3d18"}
COLOURS = {"MSF-R3D+FSAM": VAL_COLOUR, "R3D-18": "#d9822b"}
SWEEP_SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 40, 3, 7
TINY, TINY_SETTINGS = "msf_r3d18_fsam", ("model.width=0.25", "data.size=56", "data.views=1x1")


@dataclass(frozen=True)
class Sweep:
    """What grows, and the powers of it over which time and memory should be straight lines; 0: none is expected."""

    name: str
    values: Sequence[float]
    powers: tuple[int, int] = (1, 1)
    networks: Sequence[str] = tuple(NETWORKS)


SWEEPS = (
    Sweep("frames", (4, 8, 16, 32)),
    Sweep("px of a side", (56, 80, 112, 160, 224), (2, 2)),
    Sweep("width", (0.25, 0.5, 0.75, 1.0), (2, 1)),
    Sweep("batch", (1, 2, 4, 8, 16)),
    Sweep("groups S", (2, 3, 4, 6, 8), (0, 0), ("MSF-R3D+FSAM",)),
)
ARGUMENTS = {"frames": "frames", "px of a side": "size", "width": "width", "groups S": "groups"}
VIDEOS = Sweep("videos", (10, 25, 50, 100, 200), networks=("MSF-R3D+FSAM",))


@dataclass(frozen=True)
class Curve:
    """One network over the values of a sweep."""

    sweep: Sweep
    network: str
    seconds: Sequence[float]  # medians
    spreads: Sequence[tuple[float, float]]  # least and most seconds
    megabytes: Sequence[float]
    rounds: int


@dataclass(frozen=True)
class Fit:
    """A straight line by least squares, its R², and the exponent of the power law that fits best."""

    slope: float
    offset: float
    r2: float
    exponent: float


def fit(x: Sequence[float], y: Sequence[float], power: int) -> Fit:
    """y over x**power; the exponent is of x**power too, so that 1 is a straight line through the origin."""
    grown, found = np.asarray(x, float) ** power, np.asarray(y, float)
    slope, offset = np.polyfit(grown, found, 1)
    rest = ((found - slope * grown - offset) ** 2).sum()
    spread = ((found - found.mean()) ** 2).sum()
    exponent = np.polyfit(np.log(grown), np.log(found), 1)[0]
    return Fit(float(slope), float(offset), float(1 - rest / spread) if spread else 1.0, float(exponent))


# Networks


def case_of(sweep: Sweep, network: str, value: float) -> Case:
    own = {ARGUMENTS[sweep.name]: int(value) if value > 1 else value} if sweep.name in ARGUMENTS else {}
    if sweep.name == "width":
        own = {"width": float(value)}
    return Case(find_network(NETWORKS[network], own), "eager", "fp32")


def conditions_of(sweep: Sweep, value: float, base: Conditions) -> Conditions:
    return replace(base, batch=int(value)) if sweep.name == "batch" else base


def measure_sweep(sweep: Sweep, base: Conditions) -> list[Curve]:
    points = [(network, value) for network in sweep.networks for value in sweep.values]
    calls: dict[tuple[str, float], Callable[[], None]] = {
        (network, value): ready(case_of(sweep, network, value), conditions_of(sweep, value, base))
        for network, value in points
    }
    started = time.perf_counter()
    for call in calls.values():
        call()
    rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, int(SWEEP_SECONDS / (time.perf_counter() - started))))
    times = time_in_turn(calls, rounds, turn_seconds=0)
    calls.clear()
    memory = {
        (network, value): working_bytes(case_of(sweep, network, value), conditions_of(sweep, value, base)) / 2**20
        for network, value in points
    }
    curves = []
    for network in sweep.networks:
        own = [times[network, value] for value in sweep.values]
        spreads = [(t.quantile(0), t.quantile(1)) for t in own]
        megabytes = [memory[network, value] for value in sweep.values]
        curves.append(Curve(sweep, network, [t.median_seconds for t in own], spreads, megabytes, rounds))
    return curves


# Videos


def write_tiny_weights(folder: Path) -> Path:
    """A small network with fresh weights."""
    recipe, file = load_recipe("paper", TINY_SETTINGS), folder / "weights.safetensors"
    model = create_model(TINY, 18, **recipe.model_arguments())
    classes = tuple(map(str, range(18)))
    save_weights(file, Weights(model, TINY, recipe.model_arguments(), classes, recipe.preprocessing(), {}))
    return file


def predict_here(weights: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Seconds and bytes of recognising so many videos in this process, once the network is loaded."""
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
    """Each number of videos in processes of their own, in turn."""
    found: dict[float, list[dict[str, Any]]] = {n: [] for n in VIDEOS.values}
    with tempfile.TemporaryDirectory() as folder:
        weights = write_tiny_weights(Path(folder))
        for _ in range(rounds):
            for n in VIDEOS.values:
                words = [sys.executable, __file__, str(data), "--predict", str(n), str(weights)]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                found[n].append(json.loads(done.stdout))
    seconds = [[run["seconds"] for run in runs] for runs in found.values()]
    megabytes = [median(run["bytes"] for run in runs) / 2**20 for runs in found.values()]
    spreads = [(min(s), max(s)) for s in seconds]
    return Curve(VIDEOS, VIDEOS.networks[0], [median(s) for s in seconds], spreads, megabytes, rounds)


def choose_videos(data: Path, n: int) -> list[Path]:
    """So many, evenly from the whole data set."""
    items = read_data(data).items
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
        for values, power in zip((curve.seconds, curve.megabytes), curve.sweep.powers, strict=True):
            found = fit(curve.sweep.values, values, power)
            flat = abs(found.exponent) < 0.1  # then the line explains nothing, for there is nothing to explain
            cells.append(
                f"{powered(curve.sweep, power)} | {found.exponent:.2f} | {'flat' if flat else f'{found.r2:.4f}'}"
            )
        rows.append(f"| {curve.network} | {' | '.join(cells)} |")
    return "\n".join(rows)


def points_table(curves: Sequence[Curve]) -> str:
    """A row for each point."""
    rows = ["| | | network | ms, median (least to most) | rounds | memory, MB |", "|---|---|---|---|---|---|"]
    for curve in curves:
        for i, value in enumerate(curve.sweep.values):
            least, most = (1000 * s for s in curve.spreads[i])
            rows.append(
                f"| {curve.sweep.name} | {value:g} | {curve.network} | {1000 * curve.seconds[i]:,.0f} "
                f"({least:,.0f} to {most:,.0f}) | {curve.rounds} | {curve.megabytes[i]:,.0f} |"
            )
    return "\n".join(rows)


def summarise(curves: Sequence[Curve], threads: int) -> str:
    return "\n".join(
        [
            "# Cost curves",
            "",
            f"Printed by `python benchmarks/cost.py DATA`: forward passes in eager fp32, threads: {threads}. What does",
            "not grow is 8 frames of 112x112 px, width 1, 2 clips, 4 groups. Videos: `predict`, width 0.25, 56 px,",
            "one view. An exponent of 1 is a line through the origin. Memory is what comes on top of the weights.",
            "",
            fits_table(curves),
            "",
            "![Time and memory over frames, pixels, width, batch, groups and videos](../docs/assets/cost.png)",
            "",
            points_table(curves),
            "",
            provenance("torch", "av", "numpy"),
            "",
        ]
    )


def plot(curves: Sequence[Curve]) -> Figure:
    """A column for each sweep, time above memory; what should be a line is drawn over its power, with the line."""
    names = list(dict.fromkeys(curve.sweep.name for curve in curves))
    figure = Figure(figsize=(2.6 * len(names), 5), layout="constrained")
    grid = figure.subplots(2, len(names), squeeze=False)
    for curve in curves:
        for row, (values, power) in enumerate(zip((curve.seconds, curve.megabytes), curve.sweep.powers, strict=True)):
            axes = grid[row, names.index(curve.sweep.name)]
            x = np.asarray(curve.sweep.values, float) ** (power or 1)
            colour = COLOURS[curve.network]
            axes.plot(x, values, "o", color=colour, markersize=4, label=curve.network)
            if power:
                line = fit(curve.sweep.values, values, power)
                axes.plot(x, line.slope * x + line.offset, color=colour, linewidth=1)
            if row == 0:
                axes.vlines(x, *zip(*curve.spreads, strict=True), color=colour, linewidth=1)
            axes.set_xlabel(powered(curve.sweep, power), color=INK)
    for axes in grid.flat:  # once all curves are there: limits that are set stay as they are
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
    for row, name in enumerate(("seconds", "memory, MB")):
        grid[row, 0].set_ylabel(name)
    grid[0, 0].legend(frameon=False, fontsize=8)
    return figure


def fill(page: str, table: str) -> str:
    """The text of docs/cost.md with its table written anew."""
    pattern = r"(<!-- cost: [^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{table}\n{m[2]}", page, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--predict", nargs=2, metavar=("N", "WEIGHTS"), help="only that, and print seconds and bytes")
    parser.add_argument("--rounds", type=int, default=3, help="of the videos")
    parser.add_argument("--out", type=Path, help="folder for cost.md and cost.png; default: benchmarks/ and docs/")
    a = parser.parse_args()
    if a.predict:
        print(json.dumps(predict_here(Path(a.predict[1]), choose_videos(a.data, int(a.predict[0])))))
        return
    base = Conditions(batch=2, train=False, threads=torch.get_num_threads(), device="cpu")
    curves = []
    for sweep in SWEEPS:
        print(f"{sweep.name}: {', '.join(map(str, sweep.values))}", file=sys.stderr, flush=True)
        curves += measure_sweep(sweep, base)
    print("videos", file=sys.stderr, flush=True)
    curves.append(measure_videos(a.data, a.rounds))
    text = summarise(curves, base.threads)
    (a.out / "cost.md" if a.out else RESULT).write_text(text, encoding="utf-8")
    (a.out / "cost.png" if a.out else DOCS / "assets" / "cost.png").write_bytes(to_png(plot(curves)))
    if not a.out:
        page = DOCS / "cost.md"
        page.write_text(fill(page.read_text(encoding="utf-8"), fits_table(curves)), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
