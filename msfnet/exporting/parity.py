"""Whether an exported network still says what the network said: compared on the same clips, and refused if not.

Numbers alone: knows no file and no runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from msfnet.types import UserError


@dataclass(frozen=True)
class Limits:
    """What a precision may change. `relative` is of the largest logit; `flips` is the share of clips, of which one is
    always allowed, that may get another label; `probability` is the mean change of the probability of the label.
    """

    relative: float | None
    flips: float
    probability: float


# fp32 differs by the order of sums alone. The others round each activation: a share of flips is an upper bound of
# what top-1 can lose, as most flips are of clips that are between two labels and go either way.
LIMITS = {
    "fp32": Limits(1e-4, 0.0, 1e-4),
    "bf16": Limits(None, 0.03, 0.01),
    "int8": Limits(None, 0.10, 0.05),
}


@dataclass(frozen=True)
class Parity:
    """How far two networks are apart on `n` clips of a `kind`."""

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
    """Two networks' logits N K of the same clips, the first being right."""
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
    """Raises UserError where a network in this precision is further from the original than it may be."""
    limits = LIMITS[precision]
    allowed = max(1, int(limits.flips * parity.n)) if limits.flips else 0
    near = limits.relative is None or parity.relative <= limits.relative  # not a number is not near
    if not (near and parity.n - parity.agreeing <= allowed and parity.probability <= limits.probability):
        wanted = f"at most {allowed} other labels and {limits.probability:g} of probability"
        wanted += f", logits within {limits.relative:g}" if limits.relative else ""
        raise UserError(f"the {precision} file was not kept: expected {wanted}, found that {parity}")
