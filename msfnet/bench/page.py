"""A bench as a table, and as a picture of accuracy against latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msfnet.atomic_io import atomic_write, write_text
from msfnet.bench.run import Bench, Row

HEADINGS = (
    *("network", "input", "runtime", "precision", "clips/s", "p50 ms", "p95 ms", "memory MB"),
    *("M parameters", "GMACs", "GFLOP/s", "of peak", "times R3D-18", "top-1"),
)
TEXT_COLUMNS = 4  # the first, which are set to the left
NONE = "–"


def cells(row: Row) -> tuple[str, ...]:
    """What a table shows of a row, in the order of HEADINGS."""
    network, share = row.case.network, row.peak_utilization
    return (
        network.label,
        "x".join(map(str, network.input_shape)),
        row.case.runtime,
        row.case.precision,
        f"{row.clips_per_second:.3g}",
        milliseconds(row.times.median_seconds),
        milliseconds(row.times.quantile(0.95)),
        NONE if row.memory_bytes is None else f"{row.memory_bytes / 2**20:.0f}",
        f"{row.params / 1e6:.2f}",
        f"{row.macs / 1e9:.3g}",
        f"{row.gflops:.3g}",
        NONE if share is None else f"{share:.0%}",
        f"{row.ratio.median:.2f} ({row.ratio.least:.2f} to {row.ratio.most:.2f})",
        NONE if network.top1 is None else f"{network.top1:.1%}",
    )


def milliseconds(seconds: float) -> str:
    """Four digits, or all that there are before the point."""
    return f"{1000 * seconds:.0f}" if seconds >= 1 else f"{1000 * seconds:.4g}"


def notes(bench: Bench) -> list[str]:
    """What the numbers mean, in sentences."""
    own = bench.conditions
    what = "training steps (forward, backward, SGD)" if own.train else "forward passes"
    lines = [
        f"{what} of {own.batch} clips, timed in turn in {bench.rounds} rounds. times R3D-18: as fast as R3D-18 of the",
        "same width and input in eager fp32, median over rounds (least to most). memory: the most that was held while",
        "running, beyond what was held before. GFLOP/s count the published network's operations, two a multiply-add.",
    ]
    for precision, peak in bench.peaks.items():
        lines.append(
            f"peak {precision}: {peak.gflops:.0f} GFLOP/s, the best of several probes ({peak.probe})"
            if peak
            else f"peak {precision}: there is no probe for it"
        )
    if any(row.case.network.top1 is not None for row in bench.rows):
        lines.append("top-1: of the run's test videos; where it has no score of them, of its validation videos")
    return [*lines, bench.machine]


def to_text(bench: Bench) -> str:
    """The table with columns one below the other, and the notes."""
    table = [HEADINGS, *map(cells, bench.rows)]
    used = [i for i in range(len(HEADINGS)) if any(row[i] != NONE for row in table[1:])]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(row[i].ljust(widths[i]) if i < TEXT_COLUMNS else row[i].rjust(widths[i]) for i in used).rstrip()
        for row in table
    ]
    return "\n".join([*lines, "", *notes(bench)])


def to_markdown(bench: Bench, title: str = "# Bench") -> str:
    rows = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, bench.rows)]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows), "", *notes(bench), ""])


def write_bench(folder: Path, bench: Bench) -> list[Path]:
    """table.md, bench.json and, where weights say how often they are right, latency.png: the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "table.md", folder / "bench.json"]
    write_text(files[0], to_markdown(bench))
    write_text(files[1], json.dumps(bench.to_dict(), indent=2, ensure_ascii=False))
    if scored := [row for row in bench.rows if row.case.network.top1 is not None]:
        files.append(folder / "latency.png")
        with atomic_write(files[-1]) as temporary:
            temporary.write_bytes(plot_latency(scored))
    return files


def plot_latency(rows: Sequence[Row]) -> bytes:
    """Top-1 against the milliseconds of a clip, a line for the runtimes of each network: a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    from msfnet.report import to_png
    from msfnet.report.plots import INK

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for network in dict.fromkeys(row.case.network for row in rows):
        own = [row for row in rows if row.case.network == network]
        points = sorted((1000 / row.clips_per_second, row.case.network.top1 or 0.0) for row in own)
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=1, label=network.label)
        for row in own:
            place = 1000 / row.clips_per_second, network.top1 or 0.0
            text = f"{row.case.runtime} {row.case.precision}"
            axes.annotate(text, place, (0, 6), textcoords="offset points", rotation=45, fontsize=7, color=INK)
    axes.set(xscale="log", xlabel="milliseconds a clip", ylabel="top-1")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12, 0.25)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return to_png(figure)
