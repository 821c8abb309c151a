"""What the pages say of a run's time, from its history alone, and of scores of classes of unequal size."""

import numpy as np
import pytest

from msfnet.report import bottleneck, score_tiles, scores_markdown, time_sections, time_shares
from msfnet.types import Scores, Views


def row(wait, transfer, augment, network, read=1.0):
    parts = {"wait": wait, "transfer": transfer, "augment": augment, "network": network, "read": read}
    return {f"{part}_seconds": seconds for part, seconds in parts.items()}


def test_shares_are_those_of_all_epochs():
    shares = time_shares([row(30, 0, 10, 60), row(0, 0, 20, 80)])
    assert shares == pytest.approx({"network": 0.7, "wait": 0.15, "augment": 0.15, "transfer": 0.0})


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (row(1, 0.5, 0.2, 98.3), "hardly waited: most for reading and decoding videos, 1.0% of the time"),
        (row(30, 1, 1, 68), "most for reading and decoding videos, 30% of the time: raise data.workers"),
        (row(1, 1, 20, 78), "most for augmentation, 20% of the time"),
        (row(1, 9, 2, 88), "most for moving batches to the device, 9% of the time"),
    ],
)
def test_the_bottleneck_is_named_with_its_remedy(times, said):
    assert said in bottleneck(time_shares([times]))


def test_a_history_without_times_has_no_section():
    assert time_sections([{"epoch": 1, "seconds": 3.0}]) == []
    assert time_shares([row(0, 0, 0, 0)]) == {}


def test_every_class_counts_alike_in_the_mean_of_classes():
    per_class = {"often": {"n": 9, "top1": 1.0}, "rare": {"n": 1, "top1": 0.0}, "half": {"n": 2, "top1": 0.5}}
    video = {"top1": 10 / 12, "top5": 1.0}
    scores = Scores(
        tuple(per_class), Views(), video, video, per_class, np.zeros((3, 3), np.int64), 12, failed={}, repeated=()
    )
    assert scores.balanced_top1 == scores.to_dict()["balanced_top1"] == 0.5
    assert "| video, mean of classes | 50.0% | |\n" in scores_markdown(scores)
    assert score_tiles(scores)["mean top-1 of classes"] == "50.0%"
