"""Latency of a single command including imports: `msfnet --help`, and `msfnet predict` of one clip.

    python benchmarks/cold_start.py ../shared/data/ucf101-18/Archery/v_Archery_g01_c01.mp4

The commands run alternately, each time in a new process. A third process executes the steps of predict and records when
each of them ends. Without --weights, predict uses the paper's network at full size with random weights. The result is
benchmarks/cold_start.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msfnet.models.checkpoint import Checkpoint, save_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance, spread

RESULT = Path(__file__).with_suffix(".md")
MODEL, CLASSES = "msf_r3d_18_fsam", 101
WANTED_SECONDS = {"--help": 0.5, "predict": 4.0}

# The steps of `msfnet predict` in order; records the time at the end of each.
STEPS = """
import os, sys, time
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
ends = {"start of Python": time.time()}
import msfnet.cli, msfnet.run_folder, msfnet.inference.sources
ends["import of the commands"] = time.time()
import torch
ends["import of torch"] = time.time()
from msfnet.inference.recognizer import Recognizer
from pathlib import Path
ends["import of the rest"] = time.time()
recognizer = Recognizer.load(sys.argv[1])
ends["loading the weights"] = time.time()
from functools import partial
from msfnet.data.sampling import eval_clips
from msfnet.data.video.decode import read_clips
own = recognizer.preprocessing
clip = read_clips(Path(sys.argv[2]), partial(eval_clips, own, own.views.clips), own.frame_format)
ends["decoding and resizing"] = time.time()
from msfnet.inference.network import score_views
score_views(recognizer.model, torch.from_numpy(clip.frames)[None], own, own.views.crops)
ends["network"] = time.time()
import json
print(json.dumps(ends))
"""


def seconds(*words: str) -> float:
    """Duration of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - started


def steps(weights: Path, video: Path) -> dict[str, float]:
    """The seconds of each step of one process."""
    last = time.time()
    done = subprocess.run([sys.executable, "-c", STEPS, weights, video], check=True, capture_output=True, text=True)
    result = {}
    for name, end in json.loads(done.stdout).items():
        result[name], last = end - last, end
    return result


def fresh_weights(folder: Path) -> Path:
    """Write the paper's network with random weights to a file."""
    file = folder / "weights.safetensors"
    classes = tuple(map(str, range(CLASSES)))
    model = create_model(MODEL, CLASSES)
    save_weights(file, Checkpoint(model, MODEL, {}, classes, load_recipe("paper").preprocessing(), {}))
    return file


def measure(weights: Path, video: Path, n: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each command and of each step of predict, in `n` processes each.

    One process of each kind runs first and is not counted: it brings the files into the page cache.
    """
    commands = {"--help": ("--help",), "predict": ("predict", str(weights), str(video))}
    whole: dict[str, list[float]] = {name: [] for name in commands}
    parts: dict[str, list[float]] = {}
    for turn in range(n + 1):
        times = {name: seconds("-m", "msfnet", *words) for name, words in commands.items()}
        of_steps = steps(weights, video)
        if turn:
            for name, value in times.items():
                whole[name].append(value)
            for name, value in of_steps.items():
                parts.setdefault(name, []).append(value)
    return whole, parts


def summarize(whole: dict[str, list[float]], parts: dict[str, list[float]], n: int, network: str) -> str:
    lines = [
        "# Cold start",
        "",
        f"Printed by `python benchmarks/cold_start.py VIDEO`: median (and range) in seconds over {n} new processes of",
        f"each kind, run alternately, with all files in the page cache. `predict` recognizes one clip with {network}.",
        "",
        "| command | seconds | target |",
        "|---|---|---|",
        *(f"| `msfnet {name}` | {spread(v, 2)} | under {WANTED_SECONDS[name]:g} |" for name, v in whole.items()),
        "",
        "| step of `predict` | seconds |",
        "|---|---|",
        *(f"| {name} | {spread(v, 3)} |" for name, v in parts.items()),
        "",
        provenance("torch", "av", "numpy", "cyclopts"),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--weights", type=Path, help="a .safetensors file or a run folder")
    parser.add_argument("--n", type=int, default=9, help="number of processes of each kind")
    parser.add_argument("--out", type=Path, default=RESULT)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = a.weights or fresh_weights(Path(folder))
        network = "the network of a run" if a.weights else f"`{MODEL}` at full size with the views of recipe `paper`"
        text = summarize(*measure(weights, a.video, a.n), a.n, network)
    a.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
