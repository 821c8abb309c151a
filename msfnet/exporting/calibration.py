"""8-bit quantization by NNCF, and the clips that an export is calibrated and compared on.

The clips are of training videos, never of those that are scored. Ranges of activations come from clips, weights are
quantized per channel. The choices were made on held-out groups of videos (a network of residual frames at width 1/4,
240 clips):

- An activation's range ends where 1 in 10,000 values of a clip is beyond it, and the widest range of all clips counts.
  Clips differ much in their motion: with the mean of their ranges, NNCF's default, 12 % of the clips got another label;
  with the widest range without a quantile 6 %, with the quantile 2.5 %. Bias correction made it worse.
- Matrix products (the gates of attention, FAM's projection, the classifier) stay in floating point, for they are a
  negligible part of the work, and so does the first convolution, a twentieth of it: input values vary more than
  activations, and with it in 8 bits the predicted probabilities changed twice as much on 320 clips of training videos
  (total variation 0.023 instead of 0.012).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msfnet.data.cache.content import fingerprint
from msfnet.data.dataset import Dataset
from msfnet.data.transforms import crop_views, normalize
from msfnet.exporting.libraries import converting, library
from msfnet.recipe import Data
from msfnet.run_folder import recorded_splits
from msfnet.types import Preprocessing, UserError, VideoItem

log = logging.getLogger(__name__)

N_CALIBRATION, N_COMPARISON = 128, 64  # clips, one of a video
N_NOISE = 8
OUTLIERS = 1e-4  # the share of a clip's activations beyond the range


def training_items(dataset: Dataset, run_folder: Path | None) -> list[VideoItem]:
    """The training videos of a dataset.

    Args:
        dataset: where the videos are.
        run_folder: the run that trained the network; None if it is not known.

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
    """Clips of noise, for where there are no videos: N C T H W."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_NOISE, *preprocessing.input_shape, generator=generator)


def quantized(model: Any, name: str, calibration: Tensor, input_name: str, first: str) -> Any:
    """Quantize the convolutions of a model to 8 bits.

    Args:
        model: an ONNX or OpenVINO model.
        name: of the network, for messages.
        calibration: clips N C T H W.
        input_name: of the model's input.
        first: the name of the first convolution, which is left out.

    Returns:
        A model of the same kind.

    Raises:
        UserError: NNCF is not installed, or cannot quantize the model.
    """
    nncf = library("nncf")
    nncf.set_log_level(logging.ERROR)
    clips: list[Mapping[str, Any]] = [{input_name: clip[None].numpy()} for clip in calibration]
    with converting(name, "NNCF"):
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
    """From the minimum over all clips to the maximum of their quantiles; after a ReLU, from 0."""
    ranges = library("nncf.quantization.range_estimator")
    collect, of, over = ranges.StatisticsCollectorParameters, ranges.StatisticsType, ranges.AggregatorType
    return ranges.RangeEstimatorParameters(
        min=collect(statistics_type=of.MIN, aggregator_type=over.MIN),
        max=collect(statistics_type=of.QUANTILE, aggregator_type=over.MAX, quantile_outlier_prob=OUTLIERS),
    )
