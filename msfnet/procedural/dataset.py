"""Write drawn videos to files: single ones, and a dataset that is the same for the same seed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from msfnet.atomic_io import atomic_write, write_text
from msfnet.procedural.figures import CLASSES, FPS, draw_video
from msfnet.progress import progress
from msfnet.types import Frames


def write_video(path: Path, frames: Frames, fps: int, *, codec: str = "libx264", pixel_format: str = "yuv420p") -> None:
    """Encode a video.

    Args:
        path: The file, whose suffix decides the container. It appears when it is complete.
        frames: T H W 3 uint8, RGB.
        fps: Frames per second.
        codec: Encoder of FFmpeg; `ffv1` with the pixel format `bgr0` is lossless.
        pixel_format: Pixel format of FFmpeg.
    """
    options = {"preset": "veryfast"} if codec == "libx264" else None
    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_dataset(manifest: Path, videos_per_class: Mapping[str, int], seed: int) -> None:
    """Draw and encode a dataset of all classes, with a manifest.

    Files that exist are kept, so that an interrupted call is completed by the next one.

    Args:
        manifest: The CSV file with path, label and split, written last; videos are in class folders beside it.
        videos_per_class: Number of videos of each class, by split.
        seed: Seed of the videos.
    """
    folder = manifest.parent
    jobs = [(label, split, i) for label in CLASSES for split, n in videos_per_class.items() for i in range(n)]
    names = [f"{label}/{split}_{i:03d}.mp4" for label, split, i in jobs]
    for label in CLASSES:
        (folder / label).mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        label, split, i = jobs[number]
        path = folder / names[number]
        if not path.exists():
            rng = np.random.default_rng((seed, CLASSES.index(label), list(videos_per_class).index(split), i))
            write_video(path, draw_video(label, rng), FPS)

    with progress("videos", len(jobs)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, range(len(jobs))):
            advance(1)
    rows = [f"{name},{label},{split}" for name, (label, split, _) in zip(names, jobs, strict=True)]
    write_text(manifest, "\n".join(["path,label,split", *rows]) + "\n")
