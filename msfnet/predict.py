"""Recognise what is done in video files: each gives an answer or a reason, and none stops the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from msfnet.data.sampling import scored_clips
from msfnet.data.video.decode import read_clips
from msfnet.models.checkpoint import Weights, load_weights
from msfnet.scoring import best_device, score_views
from msfnet.types import Clip, Prediction, VideoError, Views

AHEAD = 4  # videos that are decoded while the network is at work


class Recognizer:
    """A trained network that takes video files.

    recognizer = Recognizer.load("runs/mine")
    recognizer.predict("video.mp4").predictions[0]   # ("Archery", 0.97)
    """

    def __init__(self, weights: Weights, device: str | torch.device | None = None) -> None:
        self.weights = weights
        self.classes = weights.classes
        self.device = torch.device(device) if device else best_device()
        self.model = weights.model.eval().to(self.device)

    @classmethod
    def load(cls, weights: str | Path, device: str | torch.device | None = None) -> Recognizer:
        """From a .safetensors file or a run folder. Raises UserError when it is neither."""
        return cls(load_weights(Path(weights)), device)

    def predict(self, path: str | Path, top: int = 5, views: Views | None = None) -> Prediction:
        """The `top` labels of one video with their probabilities, averaged over its views, or the reason for none."""
        return next(self.predict_many([Path(path)], top, views))

    def predict_many(self, paths: Iterable[Path], top: int = 5, views: Views | None = None) -> Iterator[Prediction]:
        """A prediction for every path, in order; the next videos are decoded while one is recognised."""
        views = views or self.weights.preprocessing.views
        waiting: deque[tuple[Path, Future[Clip | str]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            for path in paths:
                waiting.append((path, pool.submit(self._read, path, views.clips)))
                if len(waiting) > AHEAD:
                    yield self._answer(*waiting.popleft(), top, views)
            while waiting:
                yield self._answer(*waiting.popleft(), top, views)

    def _read(self, path: Path, clips: int) -> Clip | str:
        preprocessing = self.weights.preprocessing
        try:
            return read_clips(path, partial(scored_clips, preprocessing, clips), preprocessing.resize_px)
        except VideoError as error:
            return str(error)

    def _answer(self, path: Path, reading: Future[Clip | str], top: int, views: Views) -> Prediction:
        clip = reading.result()
        if isinstance(clip, str):
            return Prediction(str(path), error=clip)
        frames = torch.from_numpy(clip.frames)[None]  # 1 V T H W 3
        scores = score_views(self.model, frames, self.weights.preprocessing, views.crops)[0].mean(0)
        best = scores.topk(min(top, len(self.classes)))
        named = tuple((self.classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))
        warning = clip.warning
        if clip.repeated:
            short = f"{clip.video_frames} frames, shorter than a clip of {self.weights.preprocessing.read_frames}"
            warning = f"{warning}; {short}" if warning else short
        return Prediction(str(path), named, warning=warning)
