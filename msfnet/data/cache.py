"""Decoded frames on disk: each video is decoded and resized once, then its frames are memory-mapped.

An entry is one array T H W 3 uint8 under a name made of the file's path, size, date and the resize, so that a changed
file is a new entry. Entries are written under a temporary name and renamed. Damaged and very long videos are not kept.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from msfnet.arrays import Frames
from msfnet.data.decode import Plan, count_frames, pick, read_clips, read_video
from msfnet.files import replacing
from msfnet.types import Clip

LONGEST_BYTES = 64 * 2**20  # a longer video is decoded each time: a clip needs few of its frames


def default_folder() -> Path:
    """The user's cache folder for decoded frames; the environment variable MSFNET_CACHE names another."""
    if chosen := os.environ.get("MSFNET_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "msfnet" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msfnet"


class FrameCache:
    """Reads clips as `read_clips` does, decoding a video at most once while there is room for its frames."""

    def __init__(self, folder: Path, resize_px: tuple[int, int], budget_bytes: int) -> None:
        self.folder = folder
        self.resize_px = resize_px
        folder.mkdir(parents=True, exist_ok=True)
        self.room_bytes = budget_bytes - sum(f.stat().st_size for f in folder.glob("*.npy"))

    def read_clips(self, path: Path, plan: Plan) -> Clip:
        """As `decode.read_clips`, from the cache where it can be."""
        entry = self._entry(path)
        frames = _load(entry)
        if frames is None:
            width, height = self.resize_px
            expected_bytes = count_frames(path) * width * height * 3
            if expected_bytes > min(LONGEST_BYTES, self.room_bytes):
                return read_clips(path, plan, self.resize_px)
            video = read_video(path, self.resize_px)
            frames = video.frames[0]
            if video.warning:
                return pick(frames, plan(len(frames)), len(frames), video.warning)
            self._write(entry, frames)
        return pick(frames, plan(len(frames)), len(frames))

    def _entry(self, path: Path) -> Path:
        try:
            stat = path.stat()
            identity = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, self.resize_px)
        except OSError:
            identity = (str(path), 0, 0, self.resize_px)  # decoding will say what is wrong with it
        return self.folder / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:32]}.npy"

    def _write(self, entry: Path, frames: Frames) -> None:
        """A full disk or a read-only folder costs the entry, not the run."""
        try:
            with replacing(entry) as temporary:
                np.save(temporary, frames)
            self.room_bytes -= frames.nbytes
        except OSError:
            self.room_bytes = 0


def _load(entry: Path) -> Frames | None:
    """The entry's frames, or None when there is none or it is not whole."""
    try:
        frames: Frames = np.load(entry, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return frames
