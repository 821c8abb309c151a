"""The demo's data set on disk: encoded videos in class folders and a manifest, the same for the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from msfnet.data.listing.annotations import MANIFEST
from msfnet.data.video.encode import write_video
from msfnet.demo.figures import CLASSES, FPS, draw_video
from msfnet.files import write_text

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
