"""The demo: draw a dataset, train on it, evaluate, shuffle the frames, predict one video, and write a page about it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from msfnet.data.annotations.readers import MANIFEST, read_dataset
from msfnet.data.dataset import Dataset
from msfnet.data.video.decode import read_video
from msfnet.inference.evaluation import PROTOCOLS, evaluate
from msfnet.inference.recognizer import Recognizer
from msfnet.procedural.dataset import write_dataset
from msfnet.procedural.figures import CLASSES, HEIGHT_PX, WIDTH_PX
from msfnet.recipe import Data, load_recipe
from msfnet.report import Section, evaluation_sections, evaluation_tiles, plot_frames, plot_history, write_page
from msfnet.run_folder import Run, can_resume
from msfnet.training.trainer import resume, train
from msfnet.types import EvalResult, FrameFormat, Frames, Prediction

log = logging.getLogger(__name__)

VIDEOS_PER_CLASS = {"train": 90, "val": 10, "test": 25}
SEED = 0


class ShuffledFrames(nn.Module):
    """A network that is fed the frames of each clip in random order, so that it cannot use motion.

    Args:
        model: N C T H W -> N K.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.generator = torch.Generator().manual_seed(SEED)

    def forward(self, x: Tensor) -> Tensor:
        order = torch.rand(x.shape[0], x.shape[2], generator=self.generator).argsort(1).to(x.device)  # N T
        return self.model(torch.stack([clip[:, o] for clip, o in zip(x, order, strict=True)]))


def run_demo(out: Path, device: str | None = None) -> str:
    """Run the demo, or resume an interrupted one.

    Args:
        out: The folder for the dataset (`data`), the run (`run`) and the page (`report.html`).
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one.

    Returns:
        The results as text.

    Raises:
        Interrupted: A signal arrived during training, whose state is saved.
    """
    started = time.monotonic()
    count = sum(VIDEOS_PER_CLASS.values()) * len(CLASSES)
    log.info(f"1/5 drawing and encoding {count} videos of {len(CLASSES)} classes in {out / 'data'}")
    write_dataset(out / "data" / MANIFEST, VIDEOS_PER_CLASS, SEED)
    data, folder = read_dataset(out / "data"), out / "run"
    log.info("2/5 training a narrow MSF-R3D-18 with FSAM")
    recipe = load_recipe("demo")
    run = resume(folder, device=device) if can_resume(folder) else train(data, recipe, folder, device=device)
    result = run.result
    assert result is not None
    log.info("3/5 evaluating the network with the frames of each clip shuffled")
    recognizer = Recognizer.load(run, device)
    shuffled = _evaluate_shuffled(recognizer, data)
    log.info("4/5 predicting one video")
    prediction = recognizer(data.in_split("test")[0].path, top_k=3)
    log.info("5/5 writing the report")
    page = out / "report.html"
    _write_report(page, result, shuffled, prediction, data, run)
    labels = ", ".join(f"{label} {score:.1%}" for label, score in prediction.predictions)
    return "\n".join(
        (
            f"video top-1 on {result.n_videos} test videos: {result.video.top1:.1%}",
            f"with the frames of each clip shuffled: {shuffled.video.top1:.1%} (chance: {1 / len(CLASSES):.1%})",
            f"{prediction.path}: {labels}",
            f"finished in {time.monotonic() - started:.0f} s; open {page}",
        )
    )


def _evaluate_shuffled(recognizer: Recognizer, data: Dataset) -> EvalResult:
    return evaluate(
        ShuffledFrames(recognizer.model).to(recognizer.device),
        recognizer.classes,
        recognizer.preprocessing,
        data.in_split("test"),
        data.open(Data(), recognizer.preprocessing),
        protocol=PROTOCOLS["test"],
    )


def _example_frames(data: Dataset) -> dict[str, Frames]:
    """Return eight frames T H W 3 of a video of each class."""
    examples = {}
    for label in CLASSES:
        path = next(item.path for item in data.in_split("test") if item.label == label)
        frames = read_video(path, FrameFormat((WIDTH_PX, HEIGHT_PX))).frames[0]
        examples[label] = frames[np.linspace(0, len(frames) - 1, 8).astype(int)]
    return examples


def _write_report(
    page: Path, result: EvalResult, shuffled: EvalResult, prediction: Prediction, data: Dataset, run: Run
) -> None:
    tiles = evaluation_tiles(result) | {
        "video top-1, frames shuffled": f"{shuffled.video.top1:.1%}",
        "chance": f"{1 / len(CLASSES):.1%}",
    }
    bars = {label: (f"{score:.1%}", score) for label, score in prediction.predictions}
    sections = [
        Section(
            "The classes",
            "Limbs, place and height of a figure move all the time. One of them goes in one direction only, or all "
            "oscillate, fast or slowly: only the order of the frames tells the classes apart, a single frame does not.",
            plot_frames(_example_frames(data)),
        ),
        Section("Training curves", figure=plot_history(run.history)),
        *evaluation_sections(result, thumbnails=data.thumbnails),
        Section("Prediction for one video", prediction.path, bars=bars),
    ]
    write_page(page, "msfnet demo", tiles, sections)
