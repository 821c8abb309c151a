"""Sums of an epoch, and problems of videos."""

import pytest
import torch

from msfnet.training.statistics import Sums, VideoProblems, peak_memory


def test_means_are_over_the_clips_that_count():
    """Unreadable videos count as wrong predictions; they have no loss."""
    sums = Sums(n_unreadable=1)
    sums.add(2.0, 1, 4)
    sums.add(1.0, 2, 2)
    assert sums.means("val") == {"val_loss": 0.5, "val_top1": pytest.approx(3 / 7)}
    assert Sums().means("train") == {}
    assert Sums(n_unreadable=2).means("val") == {"val_top1": 0.0}


def test_problems_survive_a_checkpoint():
    problems = VideoProblems({1: "no video"}, {2: "empty"}, {3: "truncated"}, {4: True})
    assert VideoProblems(**problems.to_dict()) == problems


def test_peak_memory_is_in_mib():
    """A process that has imported torch holds some hundred MiB."""
    assert 50 < peak_memory(torch.device("cpu"))["peak_memory_mib"] < 50_000
