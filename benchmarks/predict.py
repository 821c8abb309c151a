"""Throughput from video files to predictions: `Recognizer.predict_many`, a plain script, and where their time goes.

    python benchmarks/predict.py ../shared/data/ucf101-18 runs/mine

The plain script is the straightforward implementation: PyAV decodes every frame to RGB, torch resizes, crops, and
normalizes the frames of each clip, and an R3D-18 of torchvision's structure, with the width and the views of the run's
network, processes one clip after another. On a CPU, PyTorch computes some convolutions of a single clip with slow
loops, so a second variant of the script processes all clips of a video as one batch. The videos are divided into parts,
and all contenders process each part in turn. The result is benchmarks/predict.md.
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

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.sampling import eval_clips
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
    """Seconds by stage. Stages in different threads can overlap."""

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
    """Recognizer that times its stages."""

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
    """Time the color conversion and the resizing of the decoder."""

    class TimedConverter(decode.FrameConverter):
        def __call__(self, *arguments: Any) -> None:
            with stages("convert"):
                super().__call__(*arguments)

    decode.FrameConverter = TimedConverter  # type: ignore[misc]


class PlainScript:
    """Processes one video after another and converts every frame to RGB; batches of `at_once` clips of a video."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, at_once: int) -> None:
        self.model, self.preprocessing, self.at_once, self.stages = model.eval(), preprocessing, at_once, Stages()

    def predict_many(self, paths: Sequence[Path]) -> list[Tensor]:
        return [self.predict(path) for path in paths]

    def predict(self, path: Path) -> Tensor:
        own = self.preprocessing
        with self.stages("decode"), av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        indices = eval_clips(own, own.views.clips, len(frames))[:, : own.num_frames]
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
        x = F.interpolate(x, own.resize[::-1], mode="bilinear", antialias=True, align_corners=False)
        top, left = (x.shape[2] - own.crop_size) // 2, (x.shape[3] - own.crop_size) // 2
        x = x[:, :, top : top + own.crop_size, left : left + own.crop_size]
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (own.mean, own.std))
        return ((x - mean) / std).transpose(0, 1)[None].contiguous()


PREDICT, PLAIN, TOGETHER = "`msfnet predict`", "plain script, R3D-18", "plain script, all clips of a video as one batch"


def contenders(run: Path) -> dict[str, TimedRecognizer | PlainScript]:
    """The contenders by their names in the table. From here on, decoding in `predict` is timed."""
    recognizer = TimedRecognizer.load(run, "cpu")
    recognizer.stages = Stages()
    time_conversion(recognizer.stages)
    weights = recognizer.checkpoint
    own = weights.preprocessing
    width = weights.kwargs.get("width_mult", 1.0)
    network = create_model(
        "r3d_18", len(weights.classes), width_mult=width, num_frames=own.num_frames, img_size=own.crop_size
    )
    scripts = {PLAIN: PlainScript(network, own, 1), TOGETHER: PlainScript(network, own, own.views.clips)}
    return {PREDICT: recognizer, **scripts}


def measure(rivals: dict[str, TimedRecognizer | PlainScript], paths: Sequence[Path], parts: int) -> dict[str, Seconds]:
    """Seconds per video for each part of the videos, measured for each contender in turn."""
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


def summarize(seconds: dict[str, Seconds], rivals: dict[str, TimedRecognizer | PlainScript], n_videos: int) -> str:
    weights = rivals[PREDICT].checkpoint
    own, n_parts = weights.preprocessing, len(seconds[PREDICT])
    width, threads = weights.kwargs.get("width_mult", 1.0), torch.get_num_threads()
    rows = []
    for name, rival in rivals.items():
        whole = sum(seconds[name]) * n_videos / n_parts
        shares = " | ".join(f"{100 * rival.stages.seconds[stage] / whole:.1f}" for stage in STAGES)
        ratios = [theirs / ours for ours, theirs in zip(seconds[PREDICT], seconds[name], strict=True)]
        times = "" if name == PREDICT else spread(ratios, 2)
        rows.append(f"| {name} | {spread([1 / s for s in seconds[name]], 1)} | {times} | {shares} |")
    lines = [
        "# Throughput from video files to predictions",
        "",
        f"Printed by `python benchmarks/predict.py DATA RUN`: {n_videos} videos in {n_parts} parts, each processed by",
        f"all contenders in turn; median (and range) over parts. `predict` runs {weights.name}. All networks",
        f"have width {width:g}, use {threads} threads, and process {own.views} views of {own.num_frames} frames of",
        f"{own.crop_size} px per video.",
        "",
        f"| | videos per second | speedup of predict | {' | '.join(f'{stage}, %' for stage in STAGES)} |",
        f"|---|---|---|{'---|' * len(STAGES)}",
        *rows,
        "",
        "The percentages are shares of the time from the first to the last video. In `predict`, other threads decode",
        "and convert (resize, colors) while the network runs, so these two overlap with the rest; waiting is the time",
        "that the network waits for them. PyTorch computes some convolutions of a single clip with slow loops, which",
        "affects the plain script most.",
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
    items = read_dataset(a.data).items
    paths = [items[int(i * len(items) / a.videos)].path for i in range(a.videos)]
    rivals = contenders(a.run)
    text = summarize(measure(rivals, paths, a.parts), rivals, a.videos)
    a.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
