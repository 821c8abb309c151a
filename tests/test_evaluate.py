"""Scoring: which videos are scored, their order, unreadable videos, and the numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import logged
from torch import nn

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.cache.content import fingerprint
from msfnet.data.video_files import VideoFiles
from msfnet.inference.evaluation import PROTOCOLS, evaluate, evaluate_dataset, held_out
from msfnet.metrics import wilson_interval
from msfnet.models.checkpoint import Checkpoint, load_weights
from msfnet.recipe import Data
from msfnet.run_folder import RecordedVideo, Run, write_split
from msfnet.types import EvalResult, UserError, VideoItem, Views


def score(weights, items, model=None, **kwargs):
    """Score videos with the settings of a run, read without workers and cache."""
    loader = VideoFiles(tuple(items), "a test").open(Data(num_workers=0, cache="off"), weights.preprocessing)
    kwargs = {"protocol": PROTOCOLS["test"]} | kwargs
    return evaluate(model or weights.model, weights.classes, weights.preprocessing, items, loader, **kwargs)


def test_a_run_records_a_prediction_for_each_test_video(tiny_run):
    run = Run(tiny_run)
    scores, root = run.result, Path(run.environment["data_root"])
    tested = [(str(root / video.path), video.label) for video in run.split if video.split == "test"]
    assert scores.protocol == "test split"
    assert [(video.path, video.label) for video in scores.videos] == tested
    assert np.mean([video.correct for video in scores.videos]) == pytest.approx(scores.video.top1)
    assert all(0.5 <= video.score <= 1 for video in scores.videos)  # the higher of two
    for i, label in enumerate(scores.classes):
        predicted = [video.predicted for video in scores.videos if video.label == label]
        assert [predicted.count(other) for other in scores.classes] == scores.confusion[i].tolist()


def test_json_has_every_key_of_the_contract(tiny_run):
    scores = Run(tiny_run).result
    values = json.loads((tiny_run / "scores.json").read_text())
    assert set(values) >= {
        *("classes", "n_videos", "n_unreadable", "n_padded", "clip", "video", "chance", "mean_class_accuracy"),
        *("views", "per_class", "confusion", "videos", "unreadable", "padded", "protocol"),
    }
    assert set(values["clip"]) == {"top1", "top5"}
    assert set(values["video"]) == {"top1", "top5", "ci95"}
    assert values["chance"] == 0.5
    n_correct = sum(video.correct for video in scores.videos)
    assert scores.video.ci95 == wilson_interval(n_correct, scores.n_videos)
    assert EvalResult.from_dict(values).to_dict() == scores.to_dict()


def test_every_video_is_scored_once_whatever_the_batch(tiny_run, video_folder):
    weights = load_weights(tiny_run)
    items = read_dataset(video_folder).items
    one = score(weights, items, views=Views(1, 1))
    batched = score(weights, items, views=Views(1, 1), batch_size=3)
    assert one.n_videos == 20
    assert (one.confusion == batched.confusion).all()
    assert (one.clip.top1, one.clip.top5) == (one.video.top1, one.video.top5)  # of one view
    assert score(weights, items, views=Views(3, 3)).confusion.sum() == 20


def test_an_unreadable_video_keeps_its_place_and_counts_as_wrong(tiny_run, video_folder, tmp_path):
    weights = load_weights(tiny_run)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    shutil.copy(video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4", tmp_path / "good.mp4")
    items = [VideoItem(tmp_path / name, "GoLeft") for name in ("good.mp4", "broken.mp4", "good.mp4")]
    first, broken, last = score(weights, items).videos
    assert (broken.path, broken.predicted, broken.score) == (str((tmp_path / "broken.mp4").resolve()), None, 0)
    assert not broken.correct
    assert first == last
    assert first.predicted in weights.classes


class Diverged(nn.Module):
    """A network whose weights have become NaN."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float("nan")))

    def forward(self, x):
        return self.weight * x.mean((1, 2, 3, 4))[:, None].expand(-1, 2)


def test_a_diverged_network_predicts_nothing_and_scores_zero(tiny_run, video_folder):
    weights = load_weights(tiny_run)
    items = [VideoItem(path, "GoLeft") for path in sorted((video_folder / "GoLeft").iterdir())[:2]]
    scores = score(weights, items, Diverged())
    assert [video.predicted for video in scores.videos] == [None, None]
    assert scores.video.top1 == scores.clip.top1 == scores.per_class["GoLeft"]["top1"] == 0


def test_unknown_classes_are_refused(tiny_run, video_folder):
    with pytest.raises(UserError, match=r"does not know .first: Jump.; it knows GoLeft, GoRight"):
        score(load_weights(tiny_run), [VideoItem(video_folder, "Jump")])


# Which videos are scored


def dataset(folder, *splits):
    """Videos 0.mp4, 1.mp4, ... of different contents."""
    items = [VideoItem(folder / f"{i}.mp4", "a", split) for i, split in enumerate(splits)]
    for i, item in enumerate(items):
        item.path.write_bytes(bytes([i]))
    return VideoFiles(tuple(items), "a test")


def record(folder, *splits):
    """The split.csv of a run on the videos of `dataset`, wherever these were then."""
    names = [f"{i}.mp4" for i in range(len(splits))]
    write_split(
        folder,
        [
            RecordedVideo(name, "a", split, "", fingerprint(folder / name))
            for name, split in zip(names, splits, strict=True)
        ],
    )


@pytest.mark.parametrize(
    ("splits", "run_splits", "scored", "protocol"),
    [
        (["train", "val", "test"], [], [2], "test"),
        (["train", "val", "val"], [], [1, 2], "val"),
        ([None, None], [], [0, 1], "all"),
        ([None, None, None, None], ["train", "val", "test"], [2, 3], "unseen"),
        (["test", "test", "test"], ["train", "val", "test"], [2], "test"),
        (["val", "val", "train"], ["train", "val", "train"], [1], "val"),
        ([None, None], ["train", "train"], [0, 1], "train"),
        ([None, None], ["train", "val"], [1], "val"),
        (["test", "test"], ["train", "val"], [1], "val"),
        ([None, None], ["test", "test"], [0, 1], "unseen"),
        (["test", "train"], ["train", "train"], [0], "train"),
    ],
)
def test_videos_that_a_run_trained_on_are_left_out(tmp_path, splits, run_splits, scored, protocol):
    videos, warnings = dataset(tmp_path, *splits), []
    if run_splits:
        record(tmp_path, *run_splits)
    with logged(warnings.append):
        items, found = held_out(videos, tmp_path)
    assert [int(item.path.stem) for item in items] == scored
    assert found == PROTOCOLS[protocol]
    assert any("these are training videos" in line for line in warnings) == (protocol == "train")


def test_a_run_is_scored_on_its_test_videos(tiny_run, video_folder):
    n_test = sum(video.split == "test" for video in Run(tiny_run).split)
    for weights in (tiny_run, Run(tiny_run), tiny_run / "weights.safetensors"):
        scores = evaluate_dataset(weights, video_folder)
        assert (scores.n_videos, scores.protocol) == (n_test, "videos that the run did not train on")
    assert scores.video == Run(tiny_run).result.video


def test_training_videos_are_named_as_such(tiny_run, tmp_path):
    run = Run(tiny_run)
    root = Path(run.environment["data_root"])
    trained = [VideoItem(root / video.path, video.label) for video in run.split if video.split == "train"]
    warnings = []
    with logged(warnings.append):
        scores = evaluate_dataset(tiny_run, VideoFiles(tuple(trained), "a test"))
    assert scores.protocol == "training videos"
    assert any(line.startswith("these are training videos") for line in warnings)


class Foreign(nn.Module):
    """A network that msfnet does not know."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(3, 4, 3, 2), nn.BatchNorm3d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3, 4)))


def test_any_module_in_a_checkpoint_is_scored(tiny_run, video_folder):
    preprocessing = load_weights(tiny_run).preprocessing
    checkpoint = Checkpoint(Foreign(), "foreign", {}, ("GoLeft", "GoRight"), preprocessing, {})
    scores = evaluate_dataset(checkpoint, video_folder, views="1x1", device="cpu")
    assert (scores.n_videos, str(scores.views)) == (20, "1x1")
    assert scores.protocol == "all videos: no held-out videos are known"
    assert all(video.predicted in checkpoint.classes for video in scores.videos)


@pytest.mark.parametrize("policy", ["count_wrong", "fail"])
def test_unreadable_videos_count_as_wrong_or_end_the_evaluation(tiny_run, tmp_path, policy):
    weights = load_weights(tiny_run)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    items = [VideoItem(tmp_path / "broken.mp4", "GoLeft")]
    if policy == "fail":
        with pytest.raises(UserError, match=r"broken.mp4: .* data.on_unreadable_eval is fail"):
            score(weights, items, on_unreadable=policy)
    else:
        scores = score(weights, items, on_unreadable=policy)
        assert (scores.video.top1, scores.n_videos, len(scores.unreadable)) == (0, 1, 1)
        assert scores.confusion.sum() == 0
