"""The clips that an export is calibrated and compared on: of training videos, never of those that are scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msfnet.data.cache.content import fingerprint
from msfnet.data.dataset import Dataset
from msfnet.data.transforms import crop_views, normalize
from msfnet.recipe import Data
from msfnet.run_folder import recorded_splits
from msfnet.types import Preprocessing, UserError, VideoItem

log = logging.getLogger(__name__)

N_CALIBRATION, N_COMPARISON = 128, 64  # clips, one of a video
N_NOISE = 8


def training_items(dataset: Dataset, run_folder: Path | None) -> list[VideoItem]:
    """Return the training videos of a dataset.

    Args:
        dataset: The videos, with or without splits.
        run_folder: The run that trained the network; None if it is not known.

    Returns:
        The training split. Where the dataset has no split, all videos but those that the run validated or tested on.

    Raises:
        UserError: The dataset has a split, and no training videos in it.
    """
    if items := dataset.in_split("train"):
        return items
    if any(item.split for item in dataset.items):
        raise UserError("expected training videos to calibrate and compare on, found other splits only")
    if run_folder is None:
        return list(dataset.items)
    used = recorded_splits(run_folder, dataset.items, fingerprint)
    return [item for item, splits in zip(dataset.items, used, strict=True) if not splits & {"val", "test"}]


def draw(items: Sequence[VideoItem], *, calibrate: bool) -> tuple[list[VideoItem], list[VideoItem]]:
    """Draw videos to compare on, and others to calibrate on: always the same, half and half where there are few."""
    order = np.random.default_rng(0).permutation(len(items))
    drawn = [items[i] for i in order.tolist()]
    n = min(N_COMPARISON, len(drawn) // 2 if calibrate else len(drawn))
    return drawn[:n], drawn[n : n + N_CALIBRATION] if calibrate else []


def read(dataset: Dataset, items: Sequence[VideoItem], preprocessing: Preprocessing) -> Tensor:
    """Read the middle clip of each video, as the network takes it: N C T H W. Unreadable videos are left out.

    Raises:
        UserError: No video can be read.
    """
    loader = dataset.open(Data(cache="off", num_workers=0), preprocessing)
    clips = []
    for batch in loader.eval_batches(items, clips=1, batch_size=8).epoch():
        for index, reason in batch.unreadable.items():
            log.warning(f"left out: {items[index].path}: {reason}")
        if batch.clips is not None:
            views = crop_views(batch.clips[:, 0], preprocessing.crop_size, 1)[:, 0]  # N 1 T H W 3 -> N T h w 3
            clips.append(normalize(views, preprocessing))
    if not clips:
        raise UserError(f"expected readable videos to calibrate and compare on, found none among {len(items)}")
    return torch.cat(clips)


def noise(preprocessing: Preprocessing) -> Tensor:
    """Return clips of noise, for where there are no videos: N C T H W."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_NOISE, *preprocessing.input_shape, generator=generator)
