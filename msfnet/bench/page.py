"""Writes measurements as a table in text or Markdown, and as a plot of accuracy against latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msfnet.atomic_io import atomic_write, write_text
from msfnet.bench.run import BenchResult, Row

HEADINGS = (
    *("network", "input", "runtime", "precision", "clips/s", "p50 ms", "p95 ms", "memory MiB"),
    *("M parameters", "GMACs", "GFLOP/s", "of peak", "speedup", "top-1"),
)
TEXT_COLUMNS = 4  # the first columns, which are aligned to the left
NONE = "–"


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row, in the order of HEADINGS."""
    network, utilization = row.case.network, row.peak_utilization
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
        NONE if utilization is None else f"{utilization:.0%}",
        f"{row.speedup.median:.2f} ({row.speedup.min:.2f} to {row.speedup.max:.2f})",
        NONE if network.top1 is None else f"{network.top1:.1%}",
    )


def milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds with four digits, or without decimals from one second on."""
    return f"{1000 * seconds:.0f}" if seconds >= 1 else f"{1000 * seconds:.4g}"


def notes(bench: BenchResult) -> list[str]:
    """Return the notes below a table: what its columns mean, the machine's peak, and the machine."""
    conditions = bench.conditions
    what = "Training steps (forward, backward, SGD)" if conditions.train else "Forward passes"
    lines = [
        f"{what} of {conditions.batch_size} clips, timed alternately in {bench.repeats} repeats.",
        "memory: peak memory while running, minus the memory before.",
        "GFLOP/s: operations of the network's definition, two per multiply-add; of peak: as a share of the machine's.",
        "speedup: over R3D-18 of the same width and input in eager PyTorch, fp32; median (range) over the repeats.",
    ]
    for precision, peak in bench.peaks.items():
        if peak:
            lines.append(f"Peak {precision}: {peak.gflops:.0f} GFLOP/s, the best of several probes ({peak.probe}).")
        else:
            lines.append(f"Peak {precision}: unknown, there is no probe in this precision.")
    if any(row.case.network.top1 is not None for row in bench.rows):
        lines.append("top-1: on the test videos of the run, or on its validation videos if it has no test score.")
    return [*lines, f"{bench.machine}."]


def to_text(bench: BenchResult) -> str:
    """Return the table with aligned columns, without columns that have no value, and its notes."""
    table = [HEADINGS, *map(cells, bench.rows)]
    used = [i for i in range(len(HEADINGS)) if any(row[i] != NONE for row in table[1:])]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(row[i].ljust(widths[i]) if i < TEXT_COLUMNS else row[i].rjust(widths[i]) for i in used).rstrip()
        for row in table
    ]
    return "\n".join([*lines, "", *notes(bench)])


def to_markdown(bench: BenchResult, title: str = "# Benchmark") -> str:
    """Return the table and its notes in Markdown.

    Args:
        bench: The measurements.
        title: The heading, with its number signs.
    """
    rows = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, bench.rows)]
    table = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([title, "", *table, "", *(f"- {note}" for note in notes(bench)), ""])


def write_bench(folder: Path, bench: BenchResult) -> list[Path]:
    """Write table.md, bench.json and, if weights record their accuracy, latency.png.

    Args:
        folder: Created if it does not exist.
        bench: The measurements.

    Returns:
        The files.
    """
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
    """Return a plot of top-1 accuracy against milliseconds per clip as a PNG file, with one line per network."""
    from matplotlib.figure import Figure  # here: matplotlib takes long to import
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
            position = 1000 / row.clips_per_second, network.top1 or 0.0
            text = f"{row.case.runtime} {row.case.precision}"
            axes.annotate(text, position, (0, 6), textcoords="offset points", rotation=45, fontsize=7, color=INK)
    axes.set(xscale="log", xlabel="milliseconds per clip", ylabel="top-1 accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12, 0.25)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return to_png(figure)
