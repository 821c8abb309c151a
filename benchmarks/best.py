"""Ablation of recipe `best` on groups held out of the training set.

    python benchmarks/best.py ../shared/data/ucf101-18 --out /tmp/best

Each run is `msfnet train MANIFEST --recipe small --set ...` in its own process. MANIFEST lists the training videos of
split 1 and marks a quarter of their groups as the test split. The command can be stopped and started again: finished
runs are kept, and interrupted ones resume. `--only` selects rows. Recipe `best` itself is then trained on all training
videos and evaluated once on the test videos. The result is benchmarks/best.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.splits import hold_out

RESULT = Path(__file__).with_suffix(".md")
HELD_OUT, HELD_OUT_SEED = 0.25, 0

# Settings that all rows add to recipe `small`, small enough for an hour or two on a laptop.
SCALE = ("clip.crop_size=48", "train.epochs=20", "data.num_workers=0", "data.cache_gib=16")
VIEWED, VIEWS = "dense difference", "10x1"  # a row whose weights are evaluated again with more views
TEST = "final"  # folder name of the runs that are evaluated on the test videos
DENSE = ("clip.train_sampling=dense", "clip.eval_sampling=dense")


@dataclass(frozen=True)
class Row:
    """One line of the table: the recipe of line `on` with `sets` changed."""

    on: str | None
    sets: tuple[str, ...]


ROWS = {
    "small": Row(None, ()),
    "dense": Row("small", (*DENSE, "clip.frame_interval=1")),
    "difference": Row("small", ("clip.input=rgb_diff",)),
    "dense difference": Row("dense", ("clip.input=rgb_diff",)),
    "dense both": Row("dense", ("clip.input=rgb+rgb_diff",)),
    "every other": Row("dense difference", ("clip.frame_interval=2",)),
    "16 frames": Row("dense difference", ("clip.num_frames=16",)),
    "zero init": Row("dense difference", ("model.kwargs.zero_init_residual=true",)),
    "drop path": Row("dense difference", ("model.kwargs.drop_path_rate=0.1",)),
    "averaged": Row("dense difference", ("train.ema_decay=0.99",)),
    "longer": Row("dense difference", ("train.epochs=40",)),
    "no mixup": Row("dense difference", ("augment.mixup=0",)),
    "cutmix": Row("dense difference", ("augment.cutmix=1",)),
    "randaugment": Row("dense difference", ("augment.randaugment=[1, 5]",)),
}


def overrides(name: str) -> tuple[str, ...]:
    """All settings of a row, those of its base row first."""
    row = ROWS[name]
    return (overrides(row.on) if row.on else SCALE) + row.sets


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.replace(' ', '-').replace('+', '-')}-{seed}"


def write_manifest(data: Path, path: Path) -> None:
    """Write the training videos of split 1, with the held-out groups as the test split."""
    items = [item for item in read_dataset(data, None, 1).items if item.split == "train"]
    held = hold_out(items, HELD_OUT, HELD_OUT_SEED)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for item in items:
            writer.writerow((item.path.resolve(), item.label, "test" if item in held else "train", item.group))


def run(data: list[str], recipe: str, folder: Path, sets: Iterable[str], threads: int) -> None:
    """One training run, resumed if it was interrupted; its output goes to a log file beside the folder."""
    if (folder / "scores.json").exists():
        return
    command = [sys.executable, "-m", "msfnet", "train", *data, "--out", str(folder)]
    if (folder / "last").exists():
        command.append("--resume")
    else:
        command += ["--recipe", recipe]
        for override in sets:
            command += ["--set", override]
    with folder.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def top1s(out: Path, name: str, seeds: int) -> dict[int, float]:
    """Video top-1 in % of the finished runs, by seed."""
    files = {seed: folder_of(out, name, seed) / "scores.json" for seed in range(seeds)}
    return {seed: 100 * json.loads(f.read_text())["video"]["top1"] for seed, f in files.items() if f.exists()}


def minutes_of(out: Path, name: str, seeds: int) -> float:
    """Minutes of training, averaged over the seeds."""
    files = [folder_of(out, name, seed) / "metrics.csv" for seed in top1s(out, name, seeds)]
    return mean(sum(float(row["seconds"]) for row in csv.DictReader(file.open())) / 60 for file in files)


def spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation, or the value alone if there is only one."""
    values = list(values)
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def table(out: Path, seeds: int) -> list[str]:
    """A line for each row that has a finished run; gains are computed over the seeds that both rows have."""
    lines = [
        "| row | settings | base row | seeds | video top-1 | gain | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        scores = top1s(out, name, seeds)
        if not scores:
            continue
        other = top1s(out, row.on, seeds) if row.on else {}
        gains = [scores[seed] - other[seed] for seed in scores.keys() & other.keys()]
        gain = f"{mean(gains):+.1f}" if gains else ""
        on = f"`{row.on}`" if row.on else ""
        sets = " ".join(f"`{override}`" for override in row.sets)
        lines.append(
            f"| `{name}` | {sets} | {on} | {len(scores)} | {spread(scores.values())} | {gain} "
            f"| {minutes_of(out, name, seeds):.0f} |"
        )
    return lines


def unfinished(out: Path, seeds: int) -> list[str]:
    """A line for each interrupted run: its last epoch and training accuracy."""
    lines = []
    for name in ROWS:
        for folder in (folder_of(out, name, seed) for seed in range(seeds)):
            if (folder / "metrics.csv").exists() and not (folder / "scores.json").exists():
                last = list(csv.DictReader((folder / "metrics.csv").open()))[-1]
                top1 = 100 * float(last["train_top1"])
                lines.append(
                    f"Not finished: `{folder.name}`, after epoch {last['epoch']}, training top-1 {top1:.1f} %."
                )
    return [*lines, ""] if lines else []


def more_views(out: Path, threads: int) -> list[str]:
    """Accuracy with ten views instead of four, for the weights of the row that recipe `best` is based on."""
    folder = folder_of(out, VIEWED, 0)
    if not (folder / "scores.json").exists():
        return []
    scored = folder / f"{VIEWS}.json"
    if not scored.exists():
        command = [sys.executable, "-m", "msfnet", "evaluate", str(folder), str(out / "manifest.csv")]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [*command, "--views", VIEWS, "--json"], check=True, capture_output=True, text=True, env=environment
        )
        scored.write_text(done.stdout)
    before, after = (100 * json.loads(file.read_text())["video"]["top1"] for file in (folder / "scores.json", scored))
    return [f"`{VIEWED}`, seed 0, evaluated with {VIEWS} views: {after:.1f} instead of {before:.1f}.", ""]


def test_score(out: Path, seeds: int) -> list[str]:
    """Accuracy of recipe `best` on the test videos, evaluated once after the recipe was chosen."""
    scores = top1s(out, TEST, seeds)
    if not scores:
        return []
    first = json.loads((folder_of(out, TEST, min(scores)) / "scores.json").read_text())
    return [
        "## Recipe `best` on the test videos",
        "",
        "Printed by `msfnet train DATA --split 1 --recipe best`. Recipe `small` has its own page,",
        f"[ucf101-small.md](ucf101-small.md). Top-1 in % on {first['n_videos']} test videos, {first['views']} views.",
        "",
        "| recipe | seeds | video top-1 | minutes |",
        "|---|---|---|---|",
        f"| `best` | {len(scores)} | {spread(scores.values())} | {minutes_of(out, TEST, seeds):.0f} |",
        "",
    ]


def summarize(out: Path, seeds: int, test_seeds: int, threads: int) -> str:
    """The page: the settings, the tables, and the machine."""
    runs = [folder_of(out, name, seed) for name in ROWS for seed in top1s(out, name, seeds)]
    tested = [folder_of(out, TEST, seed) for seed in top1s(out, TEST, test_seeds)]
    environments = [json.loads((folder / "environment.json").read_text()) for folder in runs + tested]
    used = " or ".join(str(n) for n in sorted({e["threads"] for e in environments}))
    n_scored = json.loads((runs[0] / "scores.json").read_text())["n_videos"]
    first = environments[0]
    n_trained = first["videos"] - n_scored
    scale = ", ".join(f"`{override}`" for override in SCALE)
    lines = [
        "# Ablation of recipe `best`",
        "",
        "Printed by `python benchmarks/best.py DATA --out DIR`. Every row is recipe `small` with",
        f"{scale}",
        f"and the settings of the row, trained on {n_trained} training videos of 18 classes of UCF101, split 1.",
        f"Top-1 in % of the last epoch's weights with 4 views on the other {n_scored} training videos, whose groups",
        "were held out; mean ± standard deviation over seeds. The gain is the difference from the base row, over the",
        "same seeds. Minutes are the time of training on a machine that was also doing other work. No row reads a",
        "test video.",
        "",
        *table(out, seeds),
        "",
        *unfinished(out, seeds),
        *more_views(out, threads),
        *test_score(out, test_seeds),
        f"{first['cpus']} CPU cores ({first['processor']}), {used} threads per run, torch {first['torch']}, "
        f"commits {', '.join(sorted({e['commit'] for e in environments}))}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to run; default: all")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds of each row")
    parser.add_argument(
        "--test-seeds", type=int, default=1, help="number of seeds of recipe best, evaluated on the test videos"
    )
    parser.add_argument("--parallel", type=int, default=1, help="number of concurrent runs")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    manifest = a.out / "manifest.csv"
    write_manifest(a.data, manifest)
    jobs = [
        ([str(manifest)], "small", folder_of(a.out, name, seed), (*overrides(name), f"train.seed={seed}"), a.threads)
        for seed in range(a.seeds)
        for name in a.only
    ]
    whole = [str(a.data), "--split", "1"]
    jobs += [
        (whole, "best", folder_of(a.out, TEST, seed), (f"train.seed={seed}",), a.threads)
        for seed in range(a.test_seeds)
    ]
    with ThreadPoolExecutor(a.parallel) as pool:
        list(pool.map(lambda job: run(*job), jobs))
    RESULT.write_text(summarize(a.out, a.seeds, a.test_seeds, a.threads), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
