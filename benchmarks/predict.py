"""Videos a second from files to answers: `Recognizer.predict_many` against a plain script, and where their time goes.

    python benchmarks/predict.py ../shared/data/ucf101-18 runs/mine

The plain script is what one would write first: PyAV decodes every frame to RGB, torch resizes, crops and normalises
the frames of each clip, and an R3D-18 of torchvision's structure, as wide as the run's network and with as many views,
sees one clip after another. On a CPU PyTorch leaves some convolutions of a single clip to plain loops; so the script
runs a second time with the clips of a video in one tensor. The videos are cut into parts, and each part is done by all
in turn. The result is benchmarks/predict.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does; read when torch is imported

import av
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.data.annotations.readers import read_data
from msfnet.data.sampling import scored_clips
from msfnet.data.video import decode
from msfnet.inference.recognizer import Recognizer
from msfnet.models.registry import create_model
from msfnet.types import Preprocessing

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance, spread

RESULT = Path(__file__).with_suffix(".md")
STAGES = ("decode", "convert", "network", "waiting")

Seconds = list[float]


class Stages:
    """Seconds by stage. Stages of several threads run at the same time."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


class TimedRecognizer(Recognizer):
    """The product, with a look at the clock around its stages."""

    stages: Stages

    def _read(self, *arguments: Any) -> Any:
        with self.stages("read"):
            return super()._read(*arguments)

    def _scores(self, *arguments: Any) -> Any:
        with self.stages("network"):
            return super()._scores(*arguments)

    def _readings(self, *arguments: Any) -> Iterator[Any]:
        readings = super()._readings(*arguments)
        while True:
            with self.stages("waiting"):
                video = next(readings, None)
            if video is None:
                return
            yield video


def time_conversion(stages: Stages) -> None:
    """Count what the decoder spends on colour and size."""

    class TimedConverter(decode.Converter):
        def __call__(self, *arguments: Any) -> None:
            with stages("convert"):
                super().__call__(*arguments)

    decode.Converter = TimedConverter  # type: ignore[misc]


class PlainScript:
    """One video after another, every frame to RGB; `at_once` clips of a video in one tensor."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, at_once: int) -> None:
        self.model, self.preprocessing, self.at_once, self.stages = model.eval(), preprocessing, at_once, Stages()

    def predict_many(self, paths: Sequence[Path]) -> list[Tensor]:
        return [self.predict(path) for path in paths]

    def predict(self, path: Path) -> Tensor:
        own = self.preprocessing
        with self.stages("decode"), av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        indices = scored_clips(own, own.views.clips, len(frames))[:, : own.frames]
        probabilities = []
        for start in range(0, len(indices), self.at_once):
            with self.stages("convert"):
                some = indices[start : start + self.at_once]
                clips = torch.cat([self.prepare(np.stack([frames[i] for i in clip])) for clip in some])
            with self.stages("network"), torch.inference_mode():
                probabilities.append(self.model(clips).softmax(-1))
        return torch.cat(probabilities).mean(0)

    def prepare(self, frames: np.ndarray) -> Tensor:
        """uint8 T H W 3 -> float 1 3 T h w."""
        own = self.preprocessing
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        x = F.interpolate(x, own.resize_px[::-1], mode="bilinear", antialias=True, align_corners=False)
        top, left = (x.shape[2] - own.size_px) // 2, (x.shape[3] - own.size_px) // 2
        x = x[:, :, top : top + own.size_px, left : left + own.size_px]
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (own.mean, own.std))
        return ((x - mean) / std).transpose(0, 1)[None].contiguous()


PREDICT, PLAIN, TOGETHER = "`msfnet predict`", "plain script, R3D-18", "the same, a video's clips together"


def contenders(run: Path) -> dict[str, TimedRecognizer | PlainScript]:
    """By their names in the table. Decoding in `predict` is timed from here on."""
    recognizer = TimedRecognizer.load(run, "cpu")
    recognizer.stages = Stages()
    time_conversion(recognizer.stages)
    weights = recognizer.weights
    own = weights.preprocessing
    width = weights.arguments.get("width", 1.0)
    network = create_model("r3d18", len(weights.classes), width=width, frames=own.frames, size=own.size_px)
    scripts = {PLAIN: PlainScript(network, own, 1), TOGETHER: PlainScript(network, own, own.views.clips)}
    return {PREDICT: recognizer, **scripts}


def measure(rivals: dict[str, TimedRecognizer | PlainScript], paths: Sequence[Path], parts: int) -> dict[str, Seconds]:
    """Seconds a video of each part of the videos, by each rival in turn."""
    for rival in rivals.values():
        list(rival.predict_many(paths[:4]))  # warm
        rival.stages.seconds.clear()
    seconds: dict[str, Seconds] = {name: [] for name in rivals}
    for part in np.array_split(np.arange(len(paths)), parts):
        own_paths = [paths[i] for i in part]
        for name, rival in rivals.items():
            started = time.perf_counter()
            answers = list(rival.predict_many(own_paths))
            seconds[name].append((time.perf_counter() - started) / len(own_paths))
            assert name != PREDICT or not any(answer.error for answer in answers)
    read = rivals[PREDICT].stages.seconds
    read["decode"] = read.pop("read") - read["convert"]
    return seconds


def summarise(seconds: dict[str, Seconds], rivals: dict[str, TimedRecognizer | PlainScript], n_videos: int) -> str:
    weights = rivals[PREDICT].weights
    own, n_parts = weights.preprocessing, len(seconds[PREDICT])
    width, threads = weights.arguments.get("width", 1.0), torch.get_num_threads()
    rows = []
    for name, rival in rivals.items():
        whole = sum(seconds[name]) * n_videos / n_parts
        shares = " | ".join(f"{100 * rival.stages.seconds[stage] / whole:.1f}" for stage in STAGES)
        ratios = [theirs / ours for ours, theirs in zip(seconds[PREDICT], seconds[name], strict=True)]
        times = "" if name == PREDICT else spread(ratios, 2)
        rows.append(f"| {name} | {spread([1 / s for s in seconds[name]], 1)} | {times} | {shares} |")
    lines = [
        "# From video files to answers",
        "",
        f"Printed by `python benchmarks/predict.py DATA RUN`: {n_videos} videos in {n_parts} parts, each done by all",
        f"in turn; median (and range) over parts. `predict` runs {weights.name}. All networks have width {width:g} and",
        f"{threads} threads, and see {own.views} views of {own.frames} frames of {own.size_px} px a video.",
        "",
        f"| | videos a second | predict is faster, times | {' | '.join(f'{stage}, %' for stage in STAGES)} |",
        f"|---|---|---|{'---|' * len(STAGES)}",
        *rows,
        "",
        "Shares are of the time from the first to the last video. In `predict` other threads decode and convert",
        "(resize, colours) while the network works: these two overlap with the rest, and waiting is the network's for",
        "them. Of a single clip PyTorch leaves some convolutions to plain loops, which costs the plain script most.",
        "",
        provenance("torch", "av", "numpy"),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, help="a run folder or a weights file")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULT)
    a = parser.parse_args()
    items = read_data(a.data).items
    paths = [items[int(i * len(items) / a.videos)].path for i in range(a.videos)]
    rivals = contenders(a.run)
    text = summarise(measure(rivals, paths, a.parts), rivals, a.videos)
    a.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
