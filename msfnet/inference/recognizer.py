"""Recognize the actions in videos: each gives a prediction or the reason for none, and none stops the others."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msfnet.data.sampling import eval_clips
from msfnet.data.video.arrays import check_frames, read_array
from msfnet.data.video.decode import read_clips
from msfnet.inference.network import device_of, load_network, score_views
from msfnet.models.checkpoint import Checkpoint
from msfnet.run_folder import BUNDLED, Run
from msfnet.types import Clip, FrameFormat, FrameSampler, Prediction, UserError, VideoError, Views

# Clips that go through the network at once. A single one is slow: PyTorch computes some of its convolutions on a CPU by
# plain loops, and a GPU is idle most of the time. More clips are no faster.
CLIPS_CPU, CLIPS_GPU = 4, 32
MAX_THREADS = 8  # threads that decode

# A path, a file's content, a file opened in binary mode, or frames uint8 T H W 3.
Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[np.uint8] | Tensor
Reader: TypeAlias = Callable[[FrameSampler, FrameFormat], Clip]
Reading: TypeAlias = tuple[str, Clip | str]  # the name of a source, and the clip read from it or the reason for none


class Recognizer:
    """A trained network that predicts the actions in videos.

        recognizer = Recognizer.load("runs/mine")
        recognizer("video.mp4").labels                          # ("Archery", "Bowling", ...)
        for prediction in recognizer.predict_many(paths): ...   # in bounded memory

    Args:
        checkpoint: A network that runs as it is, on the device where it is. `load` also makes it faster.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model, self.classes, self.preprocessing = (
            checkpoint.model.eval(),
            checkpoint.classes,
            checkpoint.preprocessing,
        )
        self.device = device_of(self.model)

    @classmethod
    def load(
        cls, weights: str | Path | Run | Checkpoint = BUNDLED, device: str | torch.device | None = None
    ) -> Recognizer:
        """Load a network for inference.

        Args:
            weights: A .safetensors file, a run or its folder, an exported file, the name of bundled weights, or a
                `Checkpoint` of any network N C T H W -> N K.
            device: cpu, cuda, cuda:N or mps; None is a GPU where there is one.

        Raises:
            UserError: The weights or the device cannot be used.
        """
        return cls(load_network(weights, device))

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, and a single source
        self, source: Source, *, fps: float | None = None, top_k: int = 5, views: Views | str | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self,
        source: Sequence[Source],
        *,
        fps: float | None = None,
        top_k: int = 5,
        views: Views | str | None = None,
    ) -> list[Prediction]: ...

    def __call__(
        self,
        source: Any,
        *,
        fps: float | None = None,
        top_k: int = 5,
        views: Views | str | None = None,
    ) -> Prediction | list[Prediction]:
        """Recognize one video, or each video of a list.

        Args:
            source: A path (of a video file or a folder of images), a file's content, a file opened in binary mode,
                which is read from its beginning, or frames uint8 T H W 3 in RGB as an array or a tensor; or a list of
                these.
            fps: Frames per second of arrays. Needed where the network was trained at a frame rate.
            top_k: How many labels a prediction has at most.
            views: Clips and crops of each video whose probabilities are averaged, as in "4x1"; None is what the network
                was trained for.

        Returns:
            The prediction, or a list of them for a list. A video that cannot be read, missing files included, raises
            nothing: the reason is in `error`.

        Raises:
            UserError: An argument is wrong, for example an array of another shape or type.
        """
        if isinstance(source, list | tuple):
            return list(self.predict_many(source, top_k, views, fps=fps))
        return next(self.predict_many([source], top_k, views, fps=fps))

    def predict_many(
        self,
        sources: Iterable[Source],
        top_k: int = 5,
        views: Views | str | None = None,
        *,
        fps: float | None = None,
    ) -> Iterator[Prediction]:
        """Recognize videos in a stream: the next ones are decoded while others are recognized.

        Videos of few views go through the network together. A few dozen are in memory at most, however many there are.

        Args:
            sources: As `source` of a call. They are taken one by one, shortly before they are needed.
            top_k: How many labels a prediction has at most.
            views: Clips and crops of each video; None is what the network was trained for.
            fps: Frames per second of arrays.

        Yields:
            A prediction for every source, in order. A video that cannot be read raises nothing.

        Raises:
            UserError: An argument or a source is wrong.
        """
        if top_k < 1:
            raise UserError(f"expected top_k of 1 or more, found {top_k}")
        wanted = Views.parse(views) if isinstance(views, str) else views or self.preprocessing.views
        return self._predictions(sources, top_k, wanted, fps)

    def _predictions(
        self, sources: Iterable[Source], top_k: int, views: Views, fps: float | None
    ) -> Iterator[Prediction]:
        together = max(1, (CLIPS_CPU if self.device.type == "cpu" else CLIPS_GPU) // (views.clips * views.crops))
        readings = self._readings(sources, views.clips, together, fps)
        while group := list(islice(readings, together)):
            yield from self._predict(group, top_k, views)

    def _readings(self, sources: Iterable[Source], clips: int, together: int, fps: float | None) -> Iterator[Reading]:
        """Yield the reading of each source, in order, while threads read a bounded number of sources ahead."""
        threads = min(MAX_THREADS, max(2, torch.get_num_threads()))
        waiting: deque[tuple[str, Future[Clip | str]]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for source in sources:
                name, reader = self._open(source, fps)
                waiting.append((name, pool.submit(self._read, reader, clips)))
                if len(waiting) > 2 * max(together, threads):
                    name, reading = waiting.popleft()
                    yield name, reading.result()
            while waiting:
                name, reading = waiting.popleft()
                yield name, reading.result()
        finally:  # also when the caller stops early
            pool.shutdown(cancel_futures=True)

    def _open(self, source: Any, fps: float | None) -> tuple[str, Reader]:
        """Return the name of a source, and how clips of it are read."""
        if isinstance(source, str | os.PathLike):
            return os.fspath(source), partial(read_clips, Path(source))
        if isinstance(source, bytes | bytearray | memoryview):
            return "<bytes>", partial(read_clips, bytes(source))
        if isinstance(source, np.ndarray | Tensor):
            frames = source.cpu().numpy() if isinstance(source, Tensor) else source
            check_frames(frames, fps, self.preprocessing.frame_format)
            return "<array>", partial(read_array, frames, fps)
        if not callable(getattr(source, "read", None)) or isinstance(source, io.TextIOBase):
            raise UserError(
                "expected a path, bytes, a file opened in binary mode or frames uint8 T H W 3, found "
                f"{type(source).__name__}"
            )
        name = getattr(source, "name", None)  # files on disk have a name
        content = source if source.seekable() else source.read()
        return name if isinstance(name, str) else "<file>", partial(read_clips, content)

    def _read(self, reader: Reader, clips: int) -> Clip | str:
        try:
            return reader(partial(eval_clips, self.preprocessing, clips), self.preprocessing.frame_format)
        except VideoError as error:
            return str(error)

    def _predict(self, group: Sequence[Reading], top_k: int, views: Views) -> Iterator[Prediction]:
        """Yield the predictions for videos that go through the network together; for unreadable ones, the reason."""
        frames = [clip.frames for _, clip in group if isinstance(clip, Clip)]
        scores = iter(self._scores(torch.from_numpy(np.stack(frames)), views) if frames else ())
        for name, clip in group:
            if isinstance(clip, Clip):
                yield self._prediction(name, clip, next(scores), top_k)
            else:
                yield Prediction(name, error=clip)

    def _scores(self, frames: Tensor, views: Views) -> Tensor:
        """Return the class probabilities of videos, averaged over views: uint8 N V T H W 3 -> float N K."""
        return score_views(self.model, frames, self.preprocessing, views.crops).mean(1).cpu()

    def _prediction(self, name: str, clip: Clip, scores: Tensor, top_k: int) -> Prediction:
        best = scores.topk(min(top_k, len(self.classes)))
        labels = tuple((self.classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))
        warnings = [clip.warning] if clip.warning else []
        if clip.padded:
            rate = f" at {self.preprocessing.fps:g} fps" if self.preprocessing.fps else ""
            n_needed = self.preprocessing.read_frames
            warnings.append(
                f"{clip.video_frames} frames{rate}, shorter than a clip of {n_needed}; the last frame is repeated"
            )
        return Prediction(name, labels, warning="; ".join(warnings) or None)
