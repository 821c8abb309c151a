"""Accuracy of exported networks; speed.py measures their speed.

    python benchmarks/export.py ../shared/data/ucf101-18 runs/mine

`msfnet export RUN --data DATA` writes every kind of file and precision, calibrated and compared on training videos.
`msfnet evaluate` then scores each file and the weights themselves on the test videos of split 1, on which no choice was
made. The result is benchmarks/export.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

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


def msfnet(*words: object) -> str:
    """Run a command and return its standard output."""
    command = [sys.executable, "-m", "msfnet", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def accuracy(data: Path, run: Path, folder: Path) -> list[str]:
    """A row for the weights and one for each file: top-1 on the test videos, and how many labels differ."""
    right = json.loads(msfnet("evaluate", run, data, "--split", 1, "--json"))
    labels = [video["predicted"] for video in right["videos"]]
    rows = [
        f"Top-1 in % on the {right['n_videos']} test videos, {right['views']} views. Differences are to the weights.",
        "",
        "| file | precision | clip top-1 | video top-1 | difference | videos with another label | parity at export |",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, help="run folder or weights of a trained network")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = accuracy(a.data, a.run, Path(folder))
    title = ["# Exported networks", "", "Printed by `python benchmarks/export.py DATA RUN`.", ""]
    versions = provenance("torch", "openvino", "onnxruntime", "nncf")
    RESULT.write_text("\n".join([*title, *rows, "", versions]) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
