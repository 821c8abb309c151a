"""Every scored video's own answer: in order, the unreadable ones too, and none from a network that has diverged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from msfnet.data.annotations.readers import read_manifest
from msfnet.inference.evaluation import evaluate
from msfnet.models.checkpoint import load_weights
from msfnet.training.report import read_scores
from msfnet.types import VideoItem


def test_a_run_leaves_the_answer_to_each_test_video(tiny_run):
    scores = read_scores(tiny_run)
    tested = [item for item in read_manifest(tiny_run / "split.csv").items if item.split == "test"]
    assert [(Path(video.path), video.label) for video in scores.videos] == [(item.path, item.label) for item in tested]
    assert np.mean([video.correct for video in scores.videos]) == pytest.approx(scores.video["top1"])
    assert all(0.5 <= video.score <= 1 for video in scores.videos)  # the higher of two
    for i, label in enumerate(scores.classes):
        said = [video.predicted for video in scores.videos if video.label == label]
        assert [said.count(other) for other in scores.classes] == scores.confusion[i].tolist()


def test_an_unreadable_video_has_its_place_and_no_answer(tiny_run, video_folder, tmp_path):
    weights = load_weights(tiny_run)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    shutil.copy(video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4", tmp_path / "good.mp4")
    items = [VideoItem(tmp_path / name, "GoLeft") for name in ("good.mp4", "broken.mp4", "good.mp4")]
    first, broken, last = evaluate(weights.model, weights.classes, weights.preprocessing, items, workers=0).videos
    assert (broken.path, broken.predicted, broken.score) == (str((tmp_path / "broken.mp4").resolve()), None, 0)
    assert not broken.correct
    assert first == last
    assert first.predicted in weights.classes


class Diverged(nn.Module):
    """A network whose weights have become no numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float("nan")))

    def forward(self, x):
        return self.weight * x.mean((1, 2, 3, 4))[:, None].expand(-1, 2)


def test_a_diverged_network_answers_nothing_and_scores_nothing(tiny_run, video_folder):
    weights = load_weights(tiny_run)
    items = [VideoItem(path, "GoLeft") for path in sorted((video_folder / "GoLeft").iterdir())[:2]]
    scores = evaluate(Diverged(), weights.classes, weights.preprocessing, items, workers=0)
    assert [video.predicted for video in scores.videos] == [None, None]
    assert scores.video["top1"] == scores.clip["top1"] == scores.per_class["GoLeft"]["top1"] == 0
