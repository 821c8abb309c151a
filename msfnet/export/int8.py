"""Convolutions in 8 bits, by NNCF: ranges from clips that are given, weights by the channel.

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
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from msfnet.export.libraries import library, quietly

BEYOND = 1e-4  # the share of a clip's activations


def quantised(model: Any, calibration: Tensor, input_name: str, first: str) -> Any:
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
