"""Compares the outputs of an exported network with those of the original on the same clips.

This module is independent of files and runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from msfnet.types import UserError


@dataclass(frozen=True)
class Limits:
    """What an export in some precision may change."""

    relative: float | None  # largest difference of logits, over the largest logit
    flips: float  # the share of clips that may get another label; one is allowed always, unless it is 0
    probability: float  # mean difference of the label's probability


# fp32 differs by the order of sums alone. The others round each activation. The share of flips is an upper bound of the
# loss in top-1 accuracy: most flips are of clips between two labels, which become right as often as wrong.
LIMITS = {
    "fp32": Limits(1e-4, 0.0, 1e-4),
    "bf16": Limits(None, 0.03, 0.01),
    "int8": Limits(None, 0.10, 0.05),
}


@dataclass(frozen=True)
class Parity:
    """How far the outputs of two networks differ on `n` clips of a `kind`."""

    n: int
    kind: str
    relative: float  # the largest difference of logits over the largest logit
    absolute: float
    agreeing: int  # clips with the same label first
    probability: float  # mean difference of the label's probability

    def __str__(self) -> str:
        return (
            f"{self.agreeing} of {self.n} {self.kind} get the same label; logits differ by at most {self.absolute:.2g} "
            f"({self.relative:.2g} of the largest), the label's probability by {self.probability:.2g} on average"
        )


def compare(logits: Tensor, exported: Tensor, kind: str) -> Parity:
    """Compare two networks by their logits of the same clips.

    Args:
        logits: Logits of the original: N K.
        exported: Logits of the other network: N K.
        kind: What the clips are, in the plural.
    """
    absolute = (logits - exported).abs().max().item()
    label = logits.argmax(1, keepdim=True)
    changes = logits.softmax(1).gather(1, label) - exported.softmax(1).gather(1, label)
    return Parity(
        n=len(logits),
        kind=kind,
        relative=absolute / max(logits.abs().max().item(), 1e-12),
        absolute=absolute,
        agreeing=int((exported.argmax(1, keepdim=True) == label).sum()),
        probability=changes.abs().mean().item(),
    )


def require(parity: Parity, precision: str) -> None:
    """Check a comparison against the limits of a precision.

    Raises:
        UserError: The outputs differ by more.
    """
    limits = LIMITS[precision]
    allowed = max(1, int(limits.flips * parity.n)) if limits.flips else 0
    near = limits.relative is None or parity.relative <= limits.relative  # NaN is not near
    if not (near and parity.n - parity.agreeing <= allowed and parity.probability <= limits.probability):
        wanted = f"at most {allowed} other labels and {limits.probability:g} of probability"
        wanted += f", logits within {limits.relative:g}" if limits.relative else ""
        raise UserError(f"the {precision} file was not kept: expected {wanted}, found that {parity}")
