"""What exporting a network costs in accuracy and gives in speed.

    python benchmarks/export.py ../shared/data/ucf101-18 runs/mine

Every kind of file and precision is written by `msfnet export RUN --data DATA` (training videos), then scored by
`msfnet evaluate` on the test videos of split 1, which nothing was chosen on, beside the weights themselves. Then
MSF-R3D with FSAM is timed at full width on clips of 8x112x112, against R3D-18 in eager PyTorch fp32: fresh weights,
alternating runs, processor time. The result is benchmarks/export.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from msfnet.export.load import load_network
from msfnet.export.run import TARGETS
from msfnet.models.checkpoint import Weights
from msfnet.models.registry import create_model
from msfnet.types import Preprocessing, resize_for

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
FILES = (
    ("openvino", "fp32", ".xml"),
    ("openvino", "bf16", ".xml"),
    ("openvino", "int8", ".xml"),
    ("onnx", "fp32", ".onnx"),
    ("onnx", "int8", ".onnx"),
    ("torch", "fp32", ".pt2"),
    ("torch", "bf16", ".pt2"),
)
MUST = {"fp32": 1.7, "bf16": 3.5, "int8": 6.5}
WIDE, BASELINE, CLASSES = "msf_r3d18_fsam", "r3d18", 101


def msfnet(*words: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "msfnet", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def accuracy(data: Path, run: Path, folder: Path) -> list[str]:
    """A row for the weights and one for each file: top-1 of the test videos, and how many got another label."""
    right = json.loads(msfnet("evaluate", run, data, "--split", 1, "--json"))
    labels = [video["predicted"] for video in right["videos"]]
    rows = [
        f"Top-1 in % on the {right['n_videos']} test videos, {right['views']} views. Points are over the weights.",
        "",
        "| file | precision | clip top-1 | video top-1 | points | videos with another label | parity at export |",
        "|---|---|---|---|---|---|---|",
        f"| weights | fp32 | {100 * right['clip']['top1']:.1f} | {100 * right['video']['top1']:.1f} | | | |",
    ]
    for to, precision, suffix in FILES:
        path = folder / f"{precision}{suffix}"
        words = ("export", run, "--to", to, "--precision", precision, "--out", path, "--data", data, "--split", 1)
        parity = msfnet(*words).partition(": ")[2].strip()
        found = json.loads(msfnet("evaluate", path, data, "--split", 1, "--json"))
        others = sum(video["predicted"] != label for video, label in zip(found["videos"], labels, strict=True))
        clip, video = (100 * found[kind]["top1"] for kind in ("clip", "video"))
        points = video - 100 * right["video"]["top1"]
        rows.append(f"| {to} | {precision} | {clip:.1f} | {video:.1f} | {points:+.1f} | {others} | {parity} |")
    return rows


def speed(folder: Path, batches: list[int], rounds: int) -> list[str]:
    """A row for each file and number of clips: processor time, and the ratio to eager R3D-18 on the same clips."""
    baseline = create_model(BASELINE, CLASSES).eval()
    runners: dict[str, Callable[[torch.Tensor], Any]] = {f"`{BASELINE}`, eager": baseline}
    wide = create_model(WIDE, CLASSES).eval()
    runners[f"`{WIDE}`, eager"] = wide
    preprocessing = Preprocessing(8, 112, resize_for(112), (0.4,) * 3, (0.2,) * 3, "even", 1)
    names = tuple(f"class {i}" for i in range(CLASSES))
    noise = torch.randn(4, *preprocessing.input_shape)  # to time 8 bits, any will do
    for to, precision, suffix in FILES:
        path = folder / f"wide-{precision}{suffix}"
        weights = Weights(wide, WIDE, {}, names, preprocessing, {"export": {"to": to, "precision": precision}})
        TARGETS[to].write(path, weights, precision, noise if precision == "int8" else None)
        runners[f"`{WIDE}`, {to} {precision}"] = load_network(path).model
    rows = [
        f"Median of {rounds} alternating runs in ms of processor time, {torch.get_num_threads()} threads; x: times as",
        f"fast as eager fp32 `{BASELINE}` on the same clips (median of the runs' ratios, least and most).",
        "",
        "| network and file | " + " | ".join(f"{n} clips" for n in batches) + " |",
        "|---|" + "---|" * len(batches),
    ]
    columns = [_race(runners, torch.randn(n, *preprocessing.input_shape), rounds) for n in batches]
    return rows + [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in runners]


@torch.inference_mode()
def _race(runners: dict[str, Callable[[torch.Tensor], Any]], x: torch.Tensor, rounds: int) -> dict[str, str]:
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for name, runner in runners.items():
            started = time.process_time()
            runner(x)
            if turn:  # the first compiles
                times[name].append(1000 * (time.process_time() - started))
    first = next(iter(times.values()))
    cells = {}
    for name, own in times.items():
        ratios = [a / b for a, b in zip(first, own, strict=True)]
        cells[name] = f"{median(own):.0f}, {median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, help="run folder or weights of a trained network")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 8], help="numbers of clips that are timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of the timing")
    parser.add_argument("--only", choices=("accuracy", "speed"), help="print one half, and write nothing")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if a.only != "speed":
            lines += ["## Accuracy", "", *accuracy(a.data, a.run, Path(folder)), ""]
        if a.only != "accuracy":
            lines += ["## Speed", "", *speed(Path(folder), a.batches, a.rounds), ""]
            lines += ["Asked for: " + ", ".join(f"{p} {ratio}x" for p, ratio in MUST.items()) + ".", ""]
    if a.only:
        print("\n".join(lines))
        return
    title = ["# Exported networks", "", "Printed by `python benchmarks/export.py DATA RUN`.", ""]
    versions = provenance("torch", "openvino", "onnxruntime", "nncf")
    RESULT.write_text("\n".join([*title, *lines, versions]) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
