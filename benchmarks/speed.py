"""Speed of MSF-R3D with FSAM relative to R3D-18 in eager PyTorch: every runtime and precision, training, and memory.

    python benchmarks/speed.py

One CPU thread, input 8x112x112, all cases timed alternately. The result is benchmarks/speed.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from msfnet.atomic_io import write_text
from msfnet.bench.cases import Conditions, plan_cases
from msfnet.bench.page import to_markdown
from msfnet.bench.run import BenchResult, run_bench

RESULT = Path(__file__).with_suffix(".md")
NETWORKS = ("r3d_18", "msf_r3d_18_fsam")
OURS = NETWORKS[1]
REPEATS, MEMORY_REPEATS, MEMORY_BATCH = 7, 3, 8
EXPORTS = ("onnx", "openvino")

# Targets: (what, runtimes, precision, minimum, stretch), as speedups over R3D-18.
INFERENCE = (
    ("inference, PyTorch, fp32", ("eager", "fused"), "fp32", 1.35, 1.5),
    ("inference, PyTorch, bf16", ("eager", "fused"), "bf16", 2.6, 3.2),
    ("exported, fp32", EXPORTS, "fp32", 1.7, 2.2),
    ("exported, bf16", EXPORTS, "bf16", 3.5, 4.6),
    ("exported, int8", EXPORTS, "int8", 6.5, 9.0),
)
TRAINING = (
    ("training step, fp32", ("eager",), "fp32", 1.3, 1.45),
    ("training step, bf16", ("eager",), "bf16", 2.4, 2.9),
)
MEMORY_SHARES = 0.85, 0.7


def measure(runtimes: str, precisions: str, conditions: Conditions, repeats: int) -> BenchResult:
    cases = plan_cases(NETWORKS, {}, runtimes, precisions, conditions)
    return run_bench(cases, conditions, repeats)


def reached(bench: BenchResult, targets: tuple[tuple[str, tuple[str, ...], str, float, float], ...]) -> list[str]:
    """A line for each target, with the fastest of its runtimes."""
    lines = []
    for what, runtimes, precision, must, aim in targets:
        rows = [r for r in bench.rows if r.case.network.name == OURS and r.case.runtime in runtimes]
        rows = [row for row in rows if row.case.precision == precision]
        if not rows:
            lines.append(f"| {what} | {must}x | {aim}x | not measured | | | |")
            continue
        best = max(rows, key=lambda row: row.speedup.median)
        share = f"{best.gflops:.0f}" + (f" of {best.peak.gflops:.0f}" if best.peak else "")
        found = f"**{best.speedup.median:.2f}x** | {best.speedup.min:.2f} to {best.speedup.max:.2f}"
        lines.append(f"| {what} | {must}x | {aim}x | {found} | {best.case.runtime} | {share} |")
    return lines


def memory_line(bench: BenchResult) -> str:
    theirs, ours = (next(r.memory_bytes for r in bench.rows if r.case.network.name == name) for name in NETWORKS)
    must, aim = MEMORY_SHARES
    if theirs is None or ours is None:
        return f"| training memory, fp32 | {must}x | {aim}x | not measured | | | |"
    return (
        f"| training memory, fp32, {bench.conditions.batch_size} clips | {must}x | {aim}x | **{ours / theirs:.2f}x** "
        f"| | eager | {ours / 2**20:,.0f} of {theirs / 2**20:,.0f} MiB |"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    conditions = Conditions(batch_size=2, train=False, threads=1, device="cpu")
    inference = measure("eager,fused,onnx,openvino", "fp32,bf16,int8", conditions, REPEATS)
    steps = Conditions(batch_size=2, train=True, threads=1, device="cpu")
    training = measure("eager", "fp32,bf16", steps, REPEATS)
    larger = Conditions(batch_size=MEMORY_BATCH, train=True, threads=1, device="cpu")
    memory = measure("eager", "fp32", larger, MEMORY_REPEATS)
    lines = [
        "# Speed of MSF-R3D with FSAM relative to R3D-18 in eager PyTorch, fp32",
        "",
        "Printed by `python benchmarks/speed.py`.",
        "",
        "R3D-18 has torchvision's structure with plain `nn.Conv3d`. Each line shows the fastest of its runtimes. "
        "GFLOP/s count the operations of the definition; ours needs fewer.",
        "",
        "| | minimum target | stretch target | measured, median | range | runtime | GFLOP/s, and the machine's peak |",
        "|---|---|---|---|---|---|---|",
        *reached(inference, INFERENCE),
        *reached(training, TRAINING),
        memory_line(memory),
        "",
        to_markdown(inference, "## Inference"),
        to_markdown(training, "## Training"),
        to_markdown(memory, "## Training of larger batches"),
    ]
    write_text(RESULT, "\n".join(lines))
    print("\n".join(lines[6:14]))


if __name__ == "__main__":
    main()
