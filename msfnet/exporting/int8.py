"""8-bit quantization of convolutions by NNCF: activation ranges come from clips, weights are quantized per channel.

The choices were made on held-out groups of videos (a network of residual frames at width 1/4, 240 clips):

- An activation's range ends where 1 in 10,000 values of a clip is beyond it, and the widest range of all clips counts.
  Clips differ much in their motion: with the mean of their ranges, NNCF's default, 12 % of the clips got another label;
  with the widest range without a quantile 6 %, with the quantile 2.5 %. Bias correction made it worse.
- Matrix products (the gates of attention, FAM's projection, the classifier) stay in floating point because they are a
  negligible part of the work, and so does the first convolution, a twentieth of it: input values vary more than
  activations, and with it in 8 bits the predicted probabilities changed twice as much on 320 clips of training videos
  (total variation 0.023 instead of 0.012).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from msfnet.exporting.libraries import converting, library

OUTLIERS = 1e-4  # the share of a clip's activations beyond the range


def quantized(model: Any, name: str, calibration: Tensor, input_name: str, first: str) -> Any:
    """Quantize the convolutions of a model to 8 bits.

    Args:
        model: An ONNX or OpenVINO model.
        name: Name of the network, for messages.
        calibration: Clips N C T H W.
        input_name: Name of the model's input.
        first: Name of the first convolution, which is left out.

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
    """Return ranges from the minimum over all clips to the maximum of their quantiles; after a ReLU, from 0."""
    ranges = library("nncf.quantization.range_estimator")
    collect, of, over = ranges.StatisticsCollectorParameters, ranges.StatisticsType, ranges.AggregatorType
    return ranges.RangeEstimatorParameters(
        min=collect(statistics_type=of.MIN, aggregator_type=over.MIN),
        max=collect(statistics_type=of.QUANTILE, aggregator_type=over.MAX, quantile_outlier_prob=OUTLIERS),
    )
