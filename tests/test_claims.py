"""Differences between networks and verdicts on claims, by hand. A run is a text: x for a correct prediction."""

import json

import numpy as np
import pytest

from msfnet.experiments.claims import ClaimResult, Difference, check_claims, compare_networks
from msfnet.experiments.paper import Claim


def runs(*texts):
    return np.array([[letter == "x" for letter in text] for text in texts])


def compare(first, second):
    """Compare two networks on videos that are each a group of its own."""
    return compare_networks(first, second, np.arange(first.shape[1]))


def test_difference_of_single_runs_is_tested_by_mcnemars_test():
    difference = compare(runs("xxxxxxxxxx" + "x" * 8 + "--"), runs("xxxxxxxxxx" + "-" * 8 + "xx"))
    assert difference.points == pytest.approx(30)
    assert difference.p == pytest.approx(112 / 1024)
    assert (difference.n_videos, difference.n_groups, difference.n_runs) == (20, 20, (1, 1))
    assert difference.low < 30 < difference.high


def test_runs_of_a_network_are_counted_for_each_video():
    """The first has 2, 1, 0 and 1 more correct runs of two: of 16 assignments of signs, 4 have a sum of 4 or -4."""
    difference = compare(runs("xxx-", "x-xx"), runs("--x-", "--x-"))
    assert difference.points == pytest.approx(50)
    assert difference.p == pytest.approx(2 / 8)
    assert compare(runs("xx--"), runs("xx--", "xx--")).p == 1


def test_confidence_interval_includes_the_variance_of_runs():
    videos = "xxxx----" * 25
    same = compare(runs(videos, videos), runs(videos, videos))
    assert (same.low, same.high) == (0, 0)
    varying = compare(runs("x" * 200, "-" * 200), runs(videos, videos))
    assert varying.points == 0
    assert varying.low < -40
    assert varying.high > 40


CLAIM = Claim(text="a is best", row="1 a", baselines=("1 b", "1 c"))
BETTER = Difference(5.0, 3.0, 7.0, 0.001, 0.001, 498, 125, (3, 3))
WORSE = Difference(-5.0, -7.0, -3.0, 0.001, 0.001, 498, 125, (3, 3))
SIMILAR = Difference(2.0, -1.0, 5.0, 0.001, 0.2, 498, 125, (3, 3))


@pytest.mark.parametrize(
    ("b", "c", "verdict"),
    [
        (BETTER, BETTER, "supported"),
        (BETTER, WORSE, "contradicted"),
        (BETTER, SIMILAR, "inconclusive"),
        (BETTER, None, "not run"),
        (WORSE, None, "contradicted"),
    ],
)
def test_verdicts(b, c, verdict):
    assert ClaimResult(CLAIM, {"1 b": 1.5, "1 c": 2.4}, {"1 b": b, "1 c": c}).verdict == verdict


def test_explanation_names_every_baseline():
    result = ClaimResult(CLAIM, {"1 b": 1.5, "1 c": 2.4}, {"1 b": BETTER, "1 c": None})
    assert result.explanation == "b: +5.0 points (+3.0 to +7.0), significantly better; c: not run"


def test_difference_is_significant_if_test_and_interval_agree():
    assert Difference(5, 1, 9, 0.001, 0.06, 498, 125, (3, 3)).sign == 0
    assert Difference(5, -1, 11, 0.001, 0.01, 498, 125, (3, 3)).sign == 0
    assert Difference(5, 1, 9, 0.001, 0.01, 498, 125, (3, 3)).sign == 1
    assert Difference(-5, -9, -1, 0.001, 0.01, 498, 125, (3, 3)).sign == -1


def test_p_values_are_corrected_for_the_number_of_comparisons():
    """Six videos to none have p = 1/32, and twice that in two comparisons; rows without runs do not count."""
    best, other = runs("x" * 6 + "x" * 4), runs("-" * 6 + "x" * 4)
    paper_top1, groups = {"1 a": 49.5, "1 b": 48.0, "1 c": 47.1}, np.arange(10)
    (result,) = check_claims([CLAIM], paper_top1, {"1 a": best, "1 b": other, "1 c": None}, groups)
    assert result.differences["1 b"].p_corrected == pytest.approx(1 / 32)
    assert result.paper_points == {"1 b": pytest.approx(1.5), "1 c": pytest.approx(2.4)}
    (result,) = check_claims([CLAIM], paper_top1, {"1 a": best, "1 b": other, "1 c": other}, groups)
    assert [d.p_corrected for d in result.differences.values()] == [pytest.approx(1 / 16)] * 2
    assert result.verdict == "inconclusive"
    assert json.loads(json.dumps(result.to_dict()))["baselines"]["1 c"]["paper_points"] == pytest.approx(2.4)
