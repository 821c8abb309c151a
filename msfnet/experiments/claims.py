"""Whether what the paper concludes held here: differences of networks on the same videos, and what follows from them.

Pure functions of which videos each run has correct. `correct` is R V: runs of one network, videos of all; `groups` are V:
which source each video is from, by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from msfnet import metrics
from msfnet.experiments.paper import Claim
from msfnet.types import Bools, Ints

SIGNIFICANT = 0.05
Verdict = Literal["held", "did not hold", "not decided", "not run"]


@dataclass(frozen=True)
class Difference:
    """How many points of top-1 a network has over another, with its 95 % interval, on `n_videos` of `n_groups` that
    both were scored on. `p` is of the sign-flip test over videos, `p_corrected` for the number of differences (Holm).
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
        """1 better, -1 worse, 0 where test and interval do not both say so."""
        if self.p_corrected >= SIGNIFICANT:
            return 0
        return (self.low > 0) - (self.high < 0)

    def to_text(self) -> str:
        return f"{self.points:+.1f} points ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True)
class Tried:
    """A claim against what was found: the difference to each row that it names, None where runs are missing.

    `printed` are the paper's own differences, in points.
    """

    claim: Claim
    printed: Mapping[str, float]
    differences: Mapping[str, Difference | None]

    @property
    def verdict(self) -> Verdict:
        """Held if better than every row, did not if worse than one: each told from chance by test and interval."""
        found = [difference for difference in self.differences.values() if difference]
        signs = [difference.sign for difference in found]
        if -1 in signs:
            return "did not hold"
        if len(found) < len(self.differences):
            return "not run"
        return "held" if all(sign == 1 for sign in signs) else "not decided"

    @property
    def reading(self) -> str:
        """What each difference says, in words."""
        return "; ".join(f"{_words(found)} {key.partition(' ')[2]}" for key, found in self.differences.items())

    def to_dict(self) -> dict[str, Any]:
        against = {
            key: {"paper_points": self.printed[key]} | (asdict(difference) if difference else {})
            for key, difference in self.differences.items()
        }
        claim = {"claim": self.claim.text, "better": self.claim.better, "verdict": self.verdict}
        return claim | {"reading": self.reading, "than": against}


def difference_of(first: Bools, second: Bools, groups: Ints) -> Difference:
    """Of two networks on the same videos: R V and R' V. `p_corrected` is still that of one test."""
    counts = first.sum(0) * len(second) - second.sum(0) * len(first)
    low, high = metrics.bootstrap_difference(first, second, groups)
    p = metrics.sign_flip_test(counts)
    points = 100 * float(first.mean() - second.mean())
    n_groups = int(groups.max()) + 1
    return Difference(points, 100 * low, 100 * high, p, p, first.shape[1], n_groups, (len(first), len(second)))


def try_claims(
    claims: Sequence[Claim], printed: Mapping[str, float], correct: Mapping[str, Bools | None], groups: Ints
) -> list[Tried]:
    """Every claim; `printed` is the paper's top-1 of each row in %, `correct` has None where no run is finished."""
    found: dict[tuple[str, str], Difference] = {}
    for claim in claims:
        for key in claim.than:
            first, second = correct[claim.better], correct[key]
            if first is not None and second is not None:
                found[claim.better, key] = difference_of(first, second, groups)
    corrected = metrics.holm_correction([difference.p for difference in found.values()])
    found = {
        key: replace(difference, p_corrected=p) for (key, difference), p in zip(found.items(), corrected, strict=True)
    }
    return [
        Tried(
            claim,
            {key: printed[claim.better] - printed[key] for key in claim.than},
            {key: found.get((claim.better, key)) for key in claim.than},
        )
        for claim in claims
    ]


def _words(difference: Difference | None) -> str:
    if difference is None:
        return "no run yet to set against"
    words = {1: "better than", -1: "worse than", 0: "not to be told from"}
    return f"{difference.to_text()}: {words[difference.sign]}"
