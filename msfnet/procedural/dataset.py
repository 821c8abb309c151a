"""Frames to video files: for data sets that the project makes itself.

The demo's data set on disk: encoded videos in class folders and a manifest, the same for the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from msfnet.atomic_io import atomic_write, write_text
from msfnet.data.annotations.readers import MANIFEST
from msfnet.procedural.figures import CLASSES, FPS, draw_video
from msfnet.types import Frames


def write_video(path: Path, frames: Frames, fps: int, *, codec: str = "libx264", pixel_format: str = "yuv420p") -> None:
    """Encode T H W 3 RGB frames, under a temporary name until the file is whole. FFV1 with bgr0 is lossless."""
    options = {"preset": "veryfast"} if codec == "libx264" else None
    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


Progress = Callable[[int, int], None]  # done, total


def write_data_set(folder: Path, per_class: dict[str, int], seed: int, progress: Progress | None = None) -> Path:
    """Write `per_class[split]` videos of every class for each split; returns the manifest, written last.

    Videos that are there already are kept: an interrupted call goes on where it stopped.
    """
    jobs = [(label, split, i) for label in CLASSES for split, n in per_class.items() for i in range(n)]
    names = [f"{label}/{split}_{i:03d}.mp4" for label, split, i in jobs]
    for label in CLASSES:
        (folder / label).mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        label, split, i = jobs[number]
        path = folder / names[number]
        if not path.exists():
            rng = np.random.default_rng((seed, CLASSES.index(label), list(per_class).index(split), i))
            write_video(path, draw_video(label, rng), FPS)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(write, range(len(jobs))), 1):
            if progress:
                progress(done, len(jobs))
    lines = [
        "path,label,split",
        *(f"{name},{label},{split}" for name, (label, split, _) in zip(names, jobs, strict=True)),
    ]
    manifest = folder / MANIFEST
    write_text(manifest, "\n".join(lines) + "\n")
    return manifest
