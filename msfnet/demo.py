"""The demo: make videos, train, score, shuffle, predict, draw."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from msfnet.atomic_io import atomic_write
from msfnet.data.annotations.readers import Listing, read_dataset
from msfnet.data.thumbnails import file_strips
from msfnet.data.video.decode import read_video
from msfnet.inference.evaluation import evaluate
from msfnet.inference.recognizer import Recognizer
from msfnet.procedural.dataset import write_data_set
from msfnet.procedural.figures import CLASSES, HEIGHT_PX, WIDTH_PX
from msfnet.recipe import load_recipe
from msfnet.report import Section, plot_history, plot_strips, score_sections, score_tiles, to_png, write_page
from msfnet.training.history import read_history
from msfnet.training.loop import CHECKPOINT
from msfnet.training.trainer import resume, train
from msfnet.types import EvalResult, FrameFormat, Prediction

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

PER_CLASS = {"train": 90, "val": 10, "test": 25}
SEED = 0


class ShuffledFrames(nn.Module):
    """A network that sees the frames of each clip in a random order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.generator = torch.Generator().manual_seed(SEED)

    def forward(self, x: Tensor) -> Tensor:
        order = torch.rand(x.shape[0], x.shape[2], generator=self.generator).argsort(1).to(x.device)  # N T
        return self.model(torch.stack([clip[:, o] for clip, o in zip(x, order, strict=True)]))


def run_demo(out: Path) -> str:
    """Do the whole job in `out` and say how it went. Interrupted, it goes on where it stopped."""
    started = time.monotonic()
    count = sum(PER_CLASS.values()) * len(CLASSES)
    log.info(f"1/5 drawing and encoding {count} videos of {len(CLASSES)} actions in {out / 'data'}")
    write_data_set(out / "data", PER_CLASS, SEED, partial(_every, 250))
    listing = read_dataset(out / "data")
    recipe = load_recipe("demo")
    run = out / "run"
    log.info("2/5 training a narrow MSF-R3D with FSAM")
    interrupted = (run / "last" / CHECKPOINT).exists()
    result = resume(run) if interrupted else train(listing, recipe, run)
    assert result.scores is not None
    log.info("3/5 scoring the same videos with their frames in a random order")
    recognizer = Recognizer.load(run)
    test = listing.in_split("test")
    shuffled = evaluate(
        ShuffledFrames(recognizer.model).to(recognizer.device),
        recognizer.classes,
        recognizer.weights.preprocessing,
        test,
    )
    log.info("4/5 predicting one video")
    prediction = recognizer.predict(test[0].path, top=3)
    log.info("5/5 drawing the report")
    page = out / "report.html"
    _write_report(page, result.scores, shuffled, prediction, listing, run)
    labels = ", ".join(f"{label} {score:.1%}" for label, score in prediction.predictions)
    return "\n".join(
        (
            f"held-out videos recognized: {result.scores.video['top1']:.1%} of {result.scores.n_videos}",
            f"the same with frames shuffled: {shuffled.video['top1']:.1%} (chance is {1 / len(CLASSES):.1%})",
            f"{prediction.path}: {labels}",
            f"{time.monotonic() - started:.0f} s in all; open {page}",
        )
    )


def _every(step: int, done: int, total: int) -> None:
    if done % step == 0:
        log.info(f"    {done} of {total} videos")


def _write_report(
    page: Path, scores: EvalResult, shuffled: EvalResult, prediction: Prediction, listing: Listing, run: Path
) -> None:
    tiles = score_tiles(scores) | {
        "video top-1, frames shuffled": f"{shuffled.video['top1']:.1%}",
        "chance": f"{1 / len(CLASSES):.1%}",
    }
    strips = {}
    for label in CLASSES:
        path = next(item.path for item in listing.in_split("test") if item.label == label)
        frames = read_video(path, FrameFormat((WIDTH_PX, HEIGHT_PX))).frames[0]
        strips[label] = frames[np.linspace(0, len(frames) - 1, 8).astype(int)]
    actions = plot_strips(strips)
    with atomic_write(page.with_name("actions.png")) as temporary:
        temporary.write_bytes(to_png(actions))
    bars = {label: (f"{score:.1%}", score) for label, score in prediction.predictions}
    sections = [
        Section(
            "The actions",
            "Limbs, place and height of a figure move all the time. One of them goes one way only, or all go there and "
            "back, fast or slowly: no single frame tells the classes apart, only their order does.",
            actions,
        ),
        Section("Learning", figure=plot_history(read_history(run))),
        *score_sections(scores, strips=file_strips),
        Section("One video recognized", prediction.path, bars=bars),
    ]
    write_page(page, "msfnet demo", tiles, sections)
