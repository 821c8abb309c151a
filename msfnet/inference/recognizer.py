"""Recognize what is done in video files: each gives an answer or a reason, and none stops the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msfnet.data.sampling import eval_clips
from msfnet.data.video.decode import read_clips
from msfnet.exporting.load import load_network
from msfnet.inference.views import best_device, score_views
from msfnet.models.checkpoint import Checkpoint
from msfnet.run_folder import SHIPPED
from msfnet.types import Clip, Prediction, VideoError, Views

# Clips that go through the network at once. One alone is slow: PyTorch leaves some of its convolutions on a CPU to
# plain loops, and a GPU is idle most of the time. More than these give nothing.
CLIPS_CPU, CLIPS_GPU = 4, 32
MOST_THREADS = 8  # that decode

Video = tuple[Path, Clip | str]  # what was read of a file, or the reason why nothing was


class Recognizer:
    """A trained network that takes video files.

    recognizer = Recognizer.load("runs/mine")
    recognizer.predict("video.mp4").predictions[0]   # ("Archery", 0.97)
    """

    def __init__(self, weights: Checkpoint, device: str | torch.device | None = None) -> None:
        self.weights = weights
        self.classes = weights.classes
        self.device = torch.device(device) if device else best_device()
        self.model = weights.model.eval().to(self.device)

    @classmethod
    def load(cls, weights: str | Path = SHIPPED, device: str | torch.device | None = None) -> Recognizer:
        """From a .safetensors file, a run folder or an exported file; by default the network that comes with msfnet.

        Raises UserError when it is none of them.
        """
        return cls(load_network(Path(weights)), device)

    def predict(self, path: str | Path, top: int = 5, views: Views | None = None) -> Prediction:
        """The `top` labels of one video with their probabilities, averaged over its views, or the reason for none."""
        return next(self.predict_many([Path(path)], top, views))

    def predict_many(self, paths: Iterable[Path], top: int = 5, views: Views | None = None) -> Iterator[Prediction]:
        """A prediction for every path, in order; the next videos are decoded while others are recognized.

        Videos of few views go through the network together. At most some dozen are in memory, however many there are.
        """
        views = views or self.weights.preprocessing.views
        together = max(1, (CLIPS_CPU if self.device.type == "cpu" else CLIPS_GPU) // (views.clips * views.crops))
        for videos in _in_groups(self._readings(paths, views.clips, together), together):
            yield from self._answers(videos, top, views)

    def _readings(self, paths: Iterable[Path], clips: int, together: int) -> Iterator[Video]:
        """What is read of each path, in order, by threads that are ahead of whoever asks."""
        threads = min(MOST_THREADS, max(2, torch.get_num_threads()))
        waiting: deque[tuple[Path, Future[Clip | str]]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for path in paths:
                waiting.append((path, pool.submit(self._read, path, clips)))
                if len(waiting) > 2 * max(together, threads):
                    yield _done(waiting.popleft())
            while waiting:
                yield _done(waiting.popleft())
        finally:  # also when nobody asks any more
            pool.shutdown(cancel_futures=True)

    def _read(self, path: Path, clips: int) -> Clip | str:
        preprocessing = self.weights.preprocessing
        try:
            return read_clips(path, partial(eval_clips, preprocessing, clips), preprocessing.frame_format)
        except VideoError as error:
            return str(error)

    def _answers(self, videos: Sequence[Video], top: int, views: Views) -> Iterator[Prediction]:
        """Those of videos that go through the network together; of the others, the reason."""
        read = [clip.frames for _, clip in videos if isinstance(clip, Clip)]
        scores = iter(self._scores(torch.from_numpy(np.stack(read)), views) if read else ())
        for path, clip in videos:
            if isinstance(clip, Clip):
                yield self._answer(path, clip, next(scores), top)
            else:
                yield Prediction(str(path), error=clip)

    def _scores(self, frames: Tensor, views: Views) -> Tensor:
        """Class probabilities of videos, averaged over views: uint8 N V T H W 3 -> float N K."""
        return score_views(self.model, frames, self.weights.preprocessing, views.crops).mean(1).cpu()

    def _answer(self, path: Path, clip: Clip, scores: Tensor, top: int) -> Prediction:
        best = scores.topk(min(top, len(self.classes)))
        named = tuple((self.classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))
        warning = clip.warning
        if clip.padded:
            own = self.weights.preprocessing
            at = f" at {own.fps:g} a second" if own.fps else ""
            short = f"{clip.video_frames} frames{at}, shorter than a clip of {own.read_frames}"
            warning = f"{warning}; {short}" if warning else short
        return Prediction(str(path), named, warning=warning)


def _done(reading: tuple[Path, Future[Clip | str]]) -> Video:
    return reading[0], reading[1].result()


def _in_groups(videos: Iterable[Video], size: int) -> Iterator[list[Video]]:
    """So many at a time, the last ones fewer."""
    iterator = iter(videos)
    while group := list(islice(iterator, size)):
        yield group
