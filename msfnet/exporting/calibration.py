"""The clips an export is calibrated and compared on: of training videos, never of those that are scored.

Convolutions in 8 bits, by NNCF: ranges from clips that are given, weights by the channel.

What decided, on groups of videos held out of training (a network of frame differences at width 1/4, 240 clips): a range
ends where 1 of 10,000 activations of a clip is beyond it, and the widest of the clips counts. Clips differ much in how
much moves, and the mean of their ranges, NNCF's default, gave another label to 12 % of them; the widest range without a
quantile gave 6 %, with it 2.5 %. Correcting biases made it worse.

Left as they are: matrix products, which are next to nothing of the work (the gates of attention, FAM's projection, the
classifier), and the first convolution, a twentieth of it. The values of clips lie further apart than activations do:
with their convolution in 8 bits, the answers' probabilities moved twice as far on 320 clips of training videos (0.023
against 0.012, in total variation).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msfnet.data.annotations.readers import read_manifest
from msfnet.data.dataset import Dataset
from msfnet.data.transforms import crop_views, normalize
from msfnet.exporting.libraries import library, quietly
from msfnet.recipe import Data
from msfnet.types import Preprocessing, UserError, VideoItem

log = logging.getLogger(__name__)

CALIBRATION, COMPARISON = 128, 64  # clips, one of a video
NOISE = 8


def training_items(data: Dataset, run_folder: Path) -> list[VideoItem]:
    """The training split; where the data has none, all but what the run folder's own split chose or tests on.

    Raises UserError where the data has a split and no training videos in it.
    """
    if items := data.in_split("train"):
        return items
    if any(item.split for item in data.items):
        raise UserError("expected training videos to calibrate and compare on, found other splits alone")
    recorded = run_folder / "split.csv"
    scored = [item for item in read_manifest(recorded).items if item.split != "train"] if recorded.is_file() else []
    never = {item.path.resolve() for item in scored}
    return [item for item in data.items if item.path.resolve() not in never]


def draw(items: Sequence[VideoItem], *, calibrate: bool) -> tuple[list[VideoItem], list[VideoItem]]:
    """Videos to compare on, and others to calibrate on: always the same, half and half where there are few."""
    order = np.random.default_rng(0).permutation(len(items))
    chosen = [items[i] for i in order.tolist()]
    n = min(COMPARISON, len(chosen) // 2 if calibrate else len(chosen))
    return chosen[:n], chosen[n : n + CALIBRATION] if calibrate else []


def read(data: Dataset, items: Sequence[VideoItem], preprocessing: Preprocessing) -> Tensor:
    """The middle clip of each video, as the network takes it: N C T H W. What cannot be read is named and left out.

    Raises UserError when none can be read.
    """
    loader = data.open(Data(cache="off", num_workers=0), preprocessing)
    clips = []
    for batch in loader.eval_batches(items, clips=1, batch_size=1).epoch():
        for index, reason in batch.unreadable.items():
            log.warning(f"left out: {items[index].path}: {reason}")
        if batch.clips is not None:
            views = crop_views(batch.clips[:, 0], preprocessing.crop_size, 1)[:, 0]  # N T h w 3
            clips.append(normalize(views, preprocessing))
    if not clips:
        raise UserError(f"expected videos to calibrate and compare on, found none among {len(items)} that can be read")
    return torch.cat(clips)


def noise(preprocessing: Preprocessing) -> Tensor:
    """Clips of noise, for where there are no videos: N C T H W."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE, *preprocessing.input_shape, generator=generator)


BEYOND = 1e-4  # the share of a clip's activations


def quantized(model: Any, calibration: Tensor, input_name: str, first: str) -> Any:
    """An ONNX or OpenVINO model with its convolutions in 8 bits but the one named `first`; `calibration` N C T H W."""
    nncf = library("nncf")
    nncf.set_log_level(logging.ERROR)
    clips: list[Mapping[str, Any]] = [{input_name: clip[None].numpy()} for clip in calibration]
    with quietly():
        return nncf.quantize(
            model,
            nncf.Dataset(clips),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(clips),
            ignored_scope=nncf.IgnoredScope(names=[first], types=["MatMul", "Gemm"], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=_ranges(), disable_bias_correction=True
            ),
        )


def _ranges() -> Any:
    """From the least value of all clips to the largest of their quantiles: of what a ReLU gives, from 0."""
    ranges = library("nncf.quantization.range_estimator")
    collect, of, over = ranges.StatisticsCollectorParameters, ranges.StatisticsType, ranges.AggregatorType
    return ranges.RangeEstimatorParameters(
        min=collect(statistics_type=of.MIN, aggregator_type=over.MIN),
        max=collect(statistics_type=of.QUANTILE, aggregator_type=over.MAX, quantile_outlier_prob=BEYOND),
    )
