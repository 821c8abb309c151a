"""The clips an export is calibrated and compared on: of training videos, never of those that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msfnet.data.listing.annotations import Listing, read_manifest
from msfnet.data.sampling import scored_clips
from msfnet.data.transforms import crop_views, normalise
from msfnet.data.video.decode import read_clips
from msfnet.types import Preprocessing, Say, UserError, VideoError, VideoItem

CALIBRATION, COMPARISON = 128, 64  # clips, one of a video
NOISE = 8


def training_items(listing: Listing, run_folder: Path) -> list[VideoItem]:
    """The training split; where the data has none, all but what the run folder's own split chose or tests on.

    Raises UserError where the data has a split and no training videos in it.
    """
    if items := listing.in_split("train"):
        return items
    if any(item.split for item in listing.items):
        raise UserError("expected training videos to calibrate and compare on, found other splits alone")
    recorded = run_folder / "split.csv"
    scored = [item for item in read_manifest(recorded).items if item.split != "train"] if recorded.is_file() else []
    never = {item.path.resolve() for item in scored}
    return [item for item in listing.items if item.path.resolve() not in never]


def draw(items: Sequence[VideoItem], *, calibrate: bool) -> tuple[list[VideoItem], list[VideoItem]]:
    """Videos to compare on, and others to calibrate on: always the same, half and half where there are few."""
    order = np.random.default_rng(0).permutation(len(items))
    chosen = [items[i] for i in order.tolist()]
    n = min(COMPARISON, len(chosen) // 2 if calibrate else len(chosen))
    return chosen[:n], chosen[n : n + CALIBRATION] if calibrate else []


def read(items: Sequence[VideoItem], preprocessing: Preprocessing, say: Say) -> Tensor:
    """The middle clip of each video, as the network takes it: N C T H W. What cannot be read is named and left out.

    Raises UserError when none can be read.
    """
    clips = []
    for item in items:
        try:
            clip = read_clips(item.path, partial(scored_clips, preprocessing, 1), preprocessing.frame_format)
        except VideoError as error:
            say(f"left out: {item.path}: {error}")
            continue
        views = crop_views(torch.from_numpy(clip.frames), preprocessing.size_px, 1)[:, 0]  # 1 T h w 3
        clips.append(normalise(views, preprocessing))
    if not clips:
        raise UserError(f"expected videos to calibrate and compare on, found none among {len(items)} that can be read")
    return torch.cat(clips)


def noise(preprocessing: Preprocessing) -> Tensor:
    """Clips of noise, for where there are no videos: N C T H W."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE, *preprocessing.input_shape, generator=generator)
