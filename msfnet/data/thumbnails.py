"""Small pictures of videos for pages: frames spread over each, side by side. A video that cannot be read has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from msfnet.data.cache.packed import DamagedEntry, read_header, unpack
from msfnet.data.sampling import uniform_clips
from msfnet.data.shards.index import ShardIndex, is_shards, local_folder, read_shards, sample_key
from msfnet.data.shards.stream import read_entries
from msfnet.data.video.decode import read_clips
from msfnet.types import FrameFormat, Frames, UserError, VideoError

FRAMES, SIZE_PX = 6, (96, 72)  # width and height of each, as far as shards hold that many


def strips_of(data: str | None) -> Callable[[Sequence[str]], Mapping[str, Frames]]:
    """How to picture videos by their paths, or by their names in the shards where `data` is some: path -> H W 3.

    Shards behind a URL are not fetched again for pictures.
    """
    if data is None or not is_shards(data):
        return file_strips
    return partial(shard_strips, data) if local_folder(data) else lambda paths: {}


def file_strips(paths: Sequence[str]) -> dict[str, Frames]:
    strips = {}
    for path in dict.fromkeys(paths):
        try:
            clip = read_clips(Path(path), lambda n: uniform_clips(n, FRAMES, 1), FrameFormat(SIZE_PX))
        except VideoError:
            continue
        strips[path] = _side_by_side(clip.frames[0])
    return strips


def shard_strips(source: str, paths: Sequence[str]) -> dict[str, Frames]:
    try:
        return _packed_strips(read_shards(source), set(paths))
    except UserError:  # moved or damaged since: the page does without
        return {}


def _packed_strips(index: ShardIndex, paths: set[str]) -> dict[str, Frames]:
    strips: dict[str, Frames] = {}
    for split, shards in index.splits.items():
        number = 0
        for shard in shards:
            wanted = {
                f"{sample_key(split, number + n)}.frames": item.path.as_posix()
                for n, item in enumerate(shard.items)
                if item.path.as_posix() in paths
            }
            number += len(shard.items)
            for path, entry in zip(wanted.values(), read_entries(index.source, shard, list(wanted)), strict=True):
                if (strip := _unpacked(entry)) is not None:
                    strips[path] = strip
    return strips


def _unpacked(entry: bytes | None) -> Frames | None:
    try:
        header = read_header(entry or b"")
        if not header.shape[0]:
            return None
        frames = unpack(entry or b"", uniform_clips(header.shape[0], FRAMES, 1), header)[0]  # T H W 3
    except DamagedEntry:
        return None
    return _side_by_side(_shrunk(frames))


def _side_by_side(frames: Frames) -> Frames:
    """T H W 3 -> H T*W 3."""
    return np.concatenate(list(frames), axis=1)


def _shrunk(frames: Frames) -> Frames:
    """Frames T H W 3 by a whole factor, pixels averaged, to about the height of the others."""
    factor = max(1, round(frames.shape[1] / SIZE_PX[1]))
    t, high, wide = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    blocks = frames[:, : high * factor, : wide * factor].reshape(t, high, factor, wide, factor, 3)
    return blocks.mean((2, 4)).astype(np.uint8)
