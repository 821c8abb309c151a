"""The claims of the paper against our runs: differences between networks, and the verdicts that follow from them.

Pure functions of which test videos each run predicts correctly: R V, the runs of one network and the same videos for
all networks. `groups` are the groups of the videos, from 0 to G - 1: V.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from msfnet import metrics
from msfnet.experiments.paper import Claim
from msfnet.types import Bools, Ints

Verdict = Literal["supported", "contradicted", "inconclusive", "not run"]


@dataclass(frozen=True)
class Difference:
    """The difference in top-1 accuracy between two networks.

    Args:
        points: Mean accuracy of the first network minus that of the second, in percentage points.
        low: Lower bound of the 95% confidence interval, in points.
        high: Upper bound of the interval, in points.
        p: p-value of the sign-flip test over videos.
        p_corrected: The same, corrected for the number of comparisons.
        n_videos: Test videos of both networks.
        n_groups: Groups of these videos.
        n_runs: Runs of the first and of the second network.
    """

    points: float
    low: float
    high: float
    p: float
    p_corrected: float
    n_videos: int
    n_groups: int
    n_runs: tuple[int, int]

    @property
    def sign(self) -> int:
        """1 if the first network is significantly better, by test and interval; -1 if it is worse; 0 otherwise."""
        if self.p_corrected >= metrics.SIGNIFICANCE_LEVEL:
            return 0
        return (self.low > 0) - (self.high < 0)

    def to_text(self) -> str:
        """Return difference and confidence interval as text."""
        return f"{self.points:+.1f} points ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True)
class ClaimResult:
    """A claim and what our runs say about it.

    Args:
        claim: A row and the baselines that it outperforms.
        paper_points: Baseline -> difference that the paper prints, in points.
        differences: Baseline -> difference of our runs; None if a run is missing.
    """

    claim: Claim
    paper_points: Mapping[str, float]
    differences: Mapping[str, Difference | None]

    @property
    def verdict(self) -> Verdict:
        """Supported if significantly better than every baseline, contradicted if worse than one of them."""
        found = [difference for difference in self.differences.values() if difference]
        signs = [difference.sign for difference in found]
        if -1 in signs:
            return "contradicted"
        if len(found) < len(self.differences):
            return "not run"
        return "supported" if all(sign == 1 for sign in signs) else "inconclusive"

    @property
    def explanation(self) -> str:
        """The difference to each baseline, in words."""
        return "; ".join(_explain(key.partition(" ")[2], found) for key, found in self.differences.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a claim in the output of `msfnet reproduce --json`."""
        baselines = {
            key: {"paper_points": self.paper_points[key]} | (asdict(difference) if difference else {})
            for key, difference in self.differences.items()
        }
        return {
            "claim": self.claim.text,
            "row": self.claim.row,
            "verdict": self.verdict,
            "explanation": self.explanation,
            "baselines": baselines,
        }


def compare_networks(first: Bools, second: Bools, groups: Ints) -> Difference:
    """Compare two networks on the same videos; `p_corrected` is that of a single comparison.

    Args:
        first: Whether each run of the first network predicts each video correctly: R V.
        second: The same of the second network: R' V.
        groups: The group of each video: V.
    """
    p = metrics.sign_flip_test(first.sum(0) * len(second) - second.sum(0) * len(first))
    low, high = metrics.bootstrap_difference(first, second, groups)
    return Difference(
        points=100 * float(first.mean() - second.mean()),
        low=100 * low,
        high=100 * high,
        p=p,
        p_corrected=p,
        n_videos=first.shape[1],
        n_groups=int(groups.max()) + 1,
        n_runs=(len(first), len(second)),
    )


def check_claims(
    claims: Sequence[Claim], paper_top1: Mapping[str, float], correct: Mapping[str, Bools | None], groups: Ints
) -> list[ClaimResult]:
    """Compare the networks of every claim, with p-values corrected for the number of comparisons (Holm).

    Args:
        claims: What the paper concludes.
        paper_top1: Row -> top-1 accuracy that the paper prints, in %.
        correct: Row -> whether each run predicts each video correctly, R V; None for a row without finished runs.
        groups: The group of each video: V.
    """
    found: dict[tuple[str, str], Difference] = {}
    for claim in claims:
        for baseline in claim.baselines:
            first, second = correct[claim.row], correct[baseline]
            if first is not None and second is not None:
                found[claim.row, baseline] = compare_networks(first, second, groups)
    corrected = metrics.holm_correction([difference.p for difference in found.values()])
    found = {
        pair: replace(difference, p_corrected=p) for (pair, difference), p in zip(found.items(), corrected, strict=True)
    }
    return [
        ClaimResult(
            claim,
            {key: paper_top1[claim.row] - paper_top1[key] for key in claim.baselines},
            {key: found.get((claim.row, key)) for key in claim.baselines},
        )
        for claim in claims
    ]


def _explain(baseline: str, difference: Difference | None) -> str:
    if difference is None:
        return f"{baseline}: not run"
    words = {1: "significantly better", -1: "significantly worse", 0: "not significant"}
    return f"{baseline}: {difference.to_text()}, {words[difference.sign]}"
