"""Decoding throughput: open a video, decode 16 evenly spaced frames, and resize them.

    pip install decord opencv-python-headless torchcodec
    python benchmarks/data/decode.py ../shared/data/ucf101-original/*.avi

Compares msfnet with other libraries, each used as its documentation recommends for this task: with one thread and with
all threads, then in two processes of one thread each, then with a filled frame cache. In each round every reader runs
once. Libraries that are not installed are skipped and named. The result is benchmarks/data/decode.md.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from provenance import provenance, spread
from torch.nn import functional as F

from msfnet.data.cache.frame_cache import FrameCache
from msfnet.data.video.decode import read_clips
from msfnet.types import FrameFormat, Frames, Indices

RESULT = Path(__file__).with_suffix(".md")
OURS, CACHE = "msfnet", "msfnet, cached"
ALIASED = "not antialiased"  # different pixels: listed, but not counted as a competitor
FRAMES, WIDTH, HEIGHT = 16, 171, 128
CACHED_PASSES = 20  # per pass of a decoder, so that the cache runs long enough to be timed
TARGET_CACHED = 20
ROUND_SECONDS = 1.0  # minimum duration with two workers
ALL = os.cpu_count() or 1

Read = Callable[[Path], Frames]  # a video to T H W 3, RGB


def even(n_frames: int, later: int = 0) -> Indices:
    """Evenly spaced frame numbers, shifted by `later` frames."""
    return np.minimum(np.linspace(0, n_frames - 1, FRAMES).round().astype(np.int64) + later, n_frames - 1)


# Readers. Each function imports its library, because none of them is a dependency.


def ours(threads: int, later: int = 0) -> Read:
    return lambda path: read_clips(path, lambda n: even(n, later)[None], FrameFormat((WIDTH, HEIGHT)), threads).frames[
        0
    ]


def cached(folder: Path, codec: str) -> Read:
    cache = FrameCache(folder, FrameFormat((WIDTH, HEIGHT)), 2**31, codec)
    return lambda path: cache.read_clips(path, lambda n: even(n)[None]).frames[0]


def decord(threads: int) -> Read:
    from decord import VideoReader

    def read(path: Path) -> Frames:
        video = VideoReader(str(path), width=WIDTH, height=HEIGHT, num_threads=threads)
        return video.get_batch(even(len(video))).asnumpy()

    return read


def opencv(threads: int | None, shrink: str = "INTER_AREA") -> Read:
    """OpenCV. Frames are skipped with grab(); seeking is slower and less exact. None: FFmpeg chooses the threads.

    Its documentation recommends INTER_AREA for shrinking, which antialiases as the others do; INTER_LINEAR does not.
    """
    import cv2

    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]

    def read(path: Path) -> Frames:
        video, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options), []
        wanted = set(even(int(video.get(cv2.CAP_PROP_FRAME_COUNT))).tolist())
        for number in range(max(wanted) + 1):
            video.grab()
            if number in wanted:
                frame = cv2.resize(video.retrieve()[1], (WIDTH, HEIGHT), interpolation=getattr(cv2, shrink))
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        return np.stack(frames)

    return read


def torchcodec(threads: int, seek_mode: str) -> Read:
    """torchcodec decodes full-size frames and torch resizes them."""
    from torchcodec.decoders import VideoDecoder

    def read(path: Path) -> Frames:
        video = VideoDecoder(path, num_ffmpeg_threads=threads, seek_mode=seek_mode)
        frames = video.get_frames_at(even(video.metadata.num_frames).tolist()).data
        resized = F.interpolate(frames, size=(HEIGHT, WIDTH), mode="bilinear", antialias=True)
        return resized.permute(0, 2, 3, 1).contiguous().numpy()  # T 3 H W -> T H W 3

    return read


def torchcodec_resize(threads: int) -> Read:
    """torchcodec decodes and resizes, which newer versions support."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def read(path: Path) -> Frames:
        resize, options = Resize((HEIGHT, WIDTH)), {"dimension_order": "NHWC", "seek_mode": "approximate"}
        video = VideoDecoder(path, num_ffmpeg_threads=threads, transforms=[resize], **options)
        return video.get_frames_at(even(video.metadata.num_frames).tolist()).data.numpy()

    return read


def pyav(threads: int) -> Read:
    def read(path: Path) -> Frames:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.thread_count = "AUTO", threads
            wanted = set(even(stream.frames).tolist())
            chosen = [frame for number, frame in enumerate(container.decode(stream)) if number in wanted]
            return np.stack([f.reformat(WIDTH, HEIGHT, "rgb24", threads=threads).to_ndarray() for f in chosen])

    return read


# Contenders


@dataclass(frozen=True)
class Reader:
    """One library with one configuration."""

    library: str
    note: str
    threads: str
    read: Read
    n_threads: int  # of decoding and resizing
    passes: int = 1
    rates: list[float] = field(default_factory=list)  # frames per second, one value per round

    @property
    def title(self) -> str:
        return ", ".join(part for part in (self.library, self.note) if part)

    def rate(self, videos: Sequence[Path], passes: int) -> float:
        self.use_threads()
        started = time.perf_counter()
        for _ in range(passes * self.passes):
            for path in videos:
                self.read(path)
        return passes * self.passes * len(videos) * FRAMES / (time.perf_counter() - started)

    def use_threads(self) -> None:
        torch.set_num_threads(self.n_threads)
        if self.library == "OpenCV":
            import cv2

            cv2.setNumThreads(self.n_threads)


def make_readers(n_threads: int) -> tuple[list[Reader], list[str]]:
    """A reader with `n_threads` threads for every installed library, and the packages that are not installed."""

    def reader(library: str, note: str, read: Read, threads: str = str(n_threads)) -> Reader:
        return Reader(library, note, threads, read, n_threads)

    readers, missing = [reader(OURS, "", ours(n_threads)), reader("PyAV", "", pyav(n_threads))], []
    if find_spec("decord"):
        readers.append(reader("decord", "", decord(n_threads)))
    else:
        missing.append("decord")
    if find_spec("cv2"):
        readers.append(reader("OpenCV", "", opencv(n_threads)))
        readers.append(reader("OpenCV", ALIASED, opencv(n_threads, "INTER_LINEAR")))
        if n_threads > 1:
            readers.append(reader("OpenCV", "", opencv(None), "its own"))
            readers.append(reader("OpenCV", ALIASED, opencv(None, "INTER_LINEAR"), "its own"))
    else:
        missing.append("opencv-python-headless")
    if find_spec("torchcodec"):
        modes = ("approximate", "exact")
        readers += [reader("torchcodec", f"{mode} seeking", torchcodec(n_threads, mode)) for mode in modes]
        if find_spec("torchcodec.transforms"):
            readers.append(reader("torchcodec", "approximate seeking, its own resize", torchcodec_resize(n_threads)))
    else:
        missing.append("torchcodec")
    return readers, missing


def fastest(readers: Sequence[Reader]) -> Reader:
    """The fastest reader among those that antialias."""
    return max((r for r in readers if r.note != ALIASED), key=lambda reader: median(reader.rates))


# Rounds


def run_alone(readers: Sequence[Reader], videos: Sequence[Path], rounds: int, passes: int) -> None:
    for reader in readers:
        reader.rate(videos, 1)  # the first calls load libraries and fill caches
    for _ in range(rounds):
        for reader in readers:
            reader.rates.append(reader.rate(videos, passes))


def run_workers(readers: Sequence[Reader], videos: Sequence[Path], rounds: int, passes: int) -> None:
    """Time two worker processes, each with one thread and `passes` passes. `readers` selects what they run."""
    spawn = get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        here, there = spawn.Pipe()
        pipes.append(here)
        processes.append(spawn.Process(target=serve, args=(there, videos), daemon=True))
        processes[-1].start()
    for pipe in pipes:
        pipe.recv()
    for _ in range(rounds):
        for number, reader in enumerate(readers):
            started = time.perf_counter()
            for pipe in pipes:
                pipe.send((number, passes))
            for pipe in pipes:
                pipe.recv()
            reader.rates.append(2 * passes * len(videos) * FRAMES / (time.perf_counter() - started))
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()


def serve(pipe: Connection, videos: Sequence[Path]) -> None:
    """A worker: reports when its libraries are loaded, then runs the readers it is asked to run."""
    readers, _ = make_readers(1)
    for reader in readers:
        reader.rate(videos, 1)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        number, passes = order
        pipe.send(readers[number].rate(videos, passes))


# Results


def difference(a: Read, b: Read, videos: Sequence[Path]) -> float:
    """Mean absolute difference between two readers' frames, on a scale of 0 to 255."""
    return float(np.mean([np.abs(a(path).astype(int) - b(path)).mean() for path in videos]))


def table(readers: Sequence[Reader], videos: Sequence[Path]) -> list[str]:
    """One row per reader, the fastest first, with the difference of its frames from ours."""
    ours_rate = median(fastest([reader for reader in readers if reader.library == OURS]).rates)
    lines = ["| reader | threads | frames per second | relative to msfnet | difference |", "|---|---|---|---|---|"]
    for reader in sorted(readers, key=lambda reader: -median(reader.rates)):
        cells = [reader.title, reader.threads, spread(reader.rates), f"{median(reader.rates) / ours_rate:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {difference(ours(1), reader.read, videos):.2f} |")
    return lines


def verdict(readers: Sequence[Reader]) -> str:
    peers = [reader for reader in readers if reader.library != OURS]
    best, peer = fastest([reader for reader in readers if reader.library == OURS]), fastest(peers)
    times = median(best.rates) / median(peer.rates)
    fastest_peer = f"({peer.title}, threads: {peer.threads})"
    return f"msfnet is {times:.2f} times as fast as the fastest other library that antialiases {fastest_peer}."


def summarize(
    alone: Sequence[Reader],
    workers: Sequence[Reader],
    caches: Sequence[Reader],
    videos: Sequence[Path],
    missing: Sequence[str],
) -> str:
    """The page with its three tables. The column of differences shows that all readers decode the same frames."""
    direct = [reader for reader in alone if reader.library == OURS]
    peer = fastest([reader for reader in alone if reader.library != OURS])
    one_off = difference(ours(1), ours(1, later=1), videos)
    lines = [
        "# Decoding throughput",
        "",
        f"Printed by `python benchmarks/data/decode.py VIDEOS` for {len(videos)} videos: open a video, decode {FRAMES}",
        f"evenly spaced frames, and resize them to {WIDTH} x {HEIGHT} px, uint8 RGB. Median (and range) over",
        f"{len(alone[0].rates)} rounds; every reader runs once per round.",
        "The difference is the mean absolute difference from msfnet's frames, on a scale of 0 to 255; it arises from",
        f"different resize filters. Decoding the neighboring frame by mistake would give {one_off:.2f}.",
        "",
        "## One process",
        "",
        *table(alone, videos),
        "",
        verdict(alone),
        "",
        "## Two worker processes with one thread each",
        "",
        *table(workers, videos),
        "",
        verdict(workers),
        "",
        "## Cached",
        "",
        "Frames from a filled `FrameCache`, in one process and in the same rounds as the first table.",
        "",
        "| codec | frames per second | speedup over decoding | over the fastest other | difference |",
        "|---|---|---|---|---|",
    ]
    for reader in caches:
        ratios = [median(reader.rates) / median(fastest(those).rates) for those in (direct, [peer])]
        cells = [reader.note, spread(reader.rates), *(f"{ratio:.1f}" for ratio in ratios)]
        lines.append(f"| {' | '.join(cells)} | {difference(ours(1), reader.read, videos):.2f} |")
    lines += ["", f"Target: at least {TARGET_CACHED} times the fastest other library that antialiases."]
    if missing:
        lines += ["", f"Not compared because not installed: {', '.join(missing)}."]
    packages = ("av", "decord", "opencv-python-headless", "torchcodec", "torch", "numpy")
    return "\n".join([*lines, "", provenance(*packages)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--passes", type=int, default=3, help="passes over the videos per round, in one process")
    parser.add_argument("--out", type=Path, default=RESULT)
    a = parser.parse_args()
    alone, missing = make_readers(1)
    if ALL > 1:
        alone += make_readers(ALL)[0]
    workers, _ = make_readers(1)
    with tempfile.TemporaryDirectory() as folder:
        codecs = ("raw", "jpeg")
        caches = [Reader(CACHE, c, "1", cached(Path(folder), c), 1, CACHED_PASSES) for c in codecs]
        run_alone([*alone, *caches], a.videos, a.repeats, a.passes)
        quickest = median(fastest([reader for reader in alone if reader.n_threads == 1]).rates)
        passes = math.ceil(ROUND_SECONDS * quickest / (len(a.videos) * FRAMES))
        run_workers(workers, a.videos, a.repeats, passes)
        text = summarize(alone, workers, caches, a.videos, missing)
    a.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
