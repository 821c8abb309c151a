"""Datasets of video files and frame folders, read by a decoder through a cache of decoded frames."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from msfnet.data.cache.frame_cache import FrameCache, choose_codec, default_folder, describe, estimate_raw_bytes
from msfnet.data.dataset import ClipLoader, VideoDataset
from msfnet.data.thumbnails import file_thumbnails
from msfnet.data.video.decoders import DirectReader, Reader, require_torchcodec
from msfnet.recipe import Data
from msfnet.types import Clip, FrameFormat, Frames, FrameSampler, Preprocessing, UserError, VideoItem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFiles(VideoDataset):
    """The video files that class folders, a manifest or official annotations name.

    Args:
        items: The videos that are there.
        source: The form of the list: "class folders", "manifest", ...
        missing: Listed names of videos that do not exist.
        notes: What else there is to say, such as lists without labels.
        official: Whether the split is a published one, which is kept even if it separates videos of one group.
    """

    items: tuple[VideoItem, ...]
    source: str
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    official: bool = False

    def describe(self) -> str:
        """Return one line: what was found and what is missing."""
        line = super().describe()
        if self.missing:
            line += f"; {len(self.missing)} listed videos are missing (first: {self.missing[0]})"
        return "; ".join((line, *self.notes))

    def with_items(self, items: Iterable[VideoItem]) -> Self:
        """Return the same dataset with these videos in place of its own."""
        return replace(self, items=tuple(items))

    def read_clips(self, item: VideoItem, sampler: FrameSampler, frame_format: FrameFormat) -> Clip:
        """Decode frames of one video, without the cache."""
        return DirectReader(frame_format).read_clips(item.path, sampler)

    def open(self, data: Data, preprocessing: Preprocessing) -> ClipLoader:
        """Get ready to read clips with the decoder, cache and worker processes that `data` asks for: see `Dataset`."""
        from msfnet.data.video_loader import VideoLoader  # here: torch takes seconds to import

        reader = open_reader(data, preprocessing, self.items)
        return VideoLoader(
            self.in_split("train"),
            self.classes,
            partial(_read, reader),
            preprocessing,
            num_workers=data.num_workers,
            class_balance=data.class_balance,
            problems=reader.problems,
        )

    def thumbnails(self, paths: Sequence[str]) -> Mapping[str, Frames]:
        """Return thumbnails H W 3 of the video files at these paths, for those that can be read."""
        return file_thumbnails(paths)


def _read(reader: Reader, item: VideoItem, sampler: FrameSampler) -> Clip:
    return reader.read_clips(item.path, sampler)


def open_reader(data: Data, preprocessing: Preprocessing, items: Sequence[VideoItem]) -> Reader:
    """Return the decoder and cache that a recipe asks for, for a run on `items`. Logs what will be cached.

    Raises:
        UserError: `data.cache` is no folder, or the decoder cannot start.
    """
    if data.decoder != "pyav":
        require_torchcodec(cuda=data.decoder == "torchcodec-cuda", num_workers=data.num_workers)
    if data.cache == "off":
        return DirectReader(preprocessing.frame_format, data.decoder)
    folder = default_folder() if data.cache == "auto" else Path(data.cache)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"expected a folder for the cache, found the file {folder}; name another or data.cache=off")
    budget_bytes, paths = int(data.cache_gib * 2**30), sorted({item.path for item in items})
    raw_bytes = estimate_raw_bytes(paths, preprocessing.frame_format)
    codec = choose_codec(data.cache_codec, raw_bytes, budget_bytes)
    cache = FrameCache(folder, preprocessing.frame_format, budget_bytes, codec, data.decoder)
    log.info(describe(len(paths), raw_bytes, codec, budget_bytes))
    for line in cache.problems():
        log.info(line)
    return cache
