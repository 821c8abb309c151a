"""Accuracy of recipe `small` for several networks and seeds.

    python benchmarks/ucf101_small.py ../shared/data/ucf101-18 --out /tmp/ucf101-small

Each run is `msfnet train DATA --split 1 --recipe small` in its own process. The command can be stopped and started
again: finished runs are kept, and interrupted ones resume. The result is benchmarks/ucf101-small.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from best import run

MODELS = ("r3d_18", "msf_r3d_18_fsam")
RESULT = Path(__file__).with_suffix("").with_name("ucf101-small.md")


def summarize(out: Path, seeds: int, parallel: int, threads: int) -> str:
    """The table: one row per network, with mean and standard deviation over seeds."""
    lines = [
        "# Recipe `small` on 18 classes of UCF101, split 1",
        "",
        "Printed by `python benchmarks/ucf101_small.py DATA --out DIR`. Top-1 in % on the 498 test videos, on which no",
        "choice was made; video top-1 averages 4 views. Mean ± standard deviation over seeds; chance is 5.6%.",
        "",
        "| network | seeds | clip top-1 | video top-1 | each seed | minutes of training |",
        "|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        folders = [out / f"{model}-{seed}" for seed in range(seeds)]
        scores = [json.loads((folder / "scores.json").read_text()) for folder in folders]
        clip, video = ([100 * score[kind]["top1"] for score in scores] for kind in ("clip", "video"))
        minutes = [
            sum(float(row["seconds"]) for row in csv.DictReader((folder / "metrics.csv").open())) / 60
            for folder in folders
        ]
        each = ", ".join(f"{value:.1f}" for value in video)
        lines.append(
            f"| `{model}` | {seeds} | {mean(clip):.1f} ± {stdev(clip):.1f} | {mean(video):.1f} ± {stdev(video):.1f} "
            f"| {each} | {min(minutes):.0f} to {max(minutes):.0f} |"
        )
    environment = json.loads((out / f"{MODELS[0]}-0" / "environment.json").read_text())
    lines += [
        "",
        f"{environment['cpus']} CPU cores ({environment['processor']}), {parallel} concurrent runs with {threads} "
        f"thread each, torch {environment['torch']}, commit {environment['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2, help="number of concurrent runs")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, model) for seed in range(a.seeds) for model in MODELS]
    data = [str(a.data), "--split", "1"]

    def train(model: str, seed: int) -> None:
        run(data, "small", a.out / f"{model}-{seed}", (f"model.name={model}", f"train.seed={seed}"), a.threads)

    with ThreadPoolExecutor(a.parallel) as pool:
        list(pool.map(lambda job: train(job[1], job[0]), jobs))
    RESULT.write_text(summarize(a.out, a.seeds, a.parallel, a.threads))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
