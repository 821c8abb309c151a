"""The recipe `best` in real runs: as a whole, its input and its averaged weights."""

import pytest
import torch
from conftest import TINY, logged

from msfnet.data.annotations.readers import read_dataset
from msfnet.doctor.cost import estimate_cost
from msfnet.doctor.file_info import VideoInfo
from msfnet.inference.evaluation import evaluate_dataset
from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import load_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.run_folder import CHECKPOINT, Run
from msfnet.training.loop import load_checkpoint
from msfnet.training.trainer import resume, train
from msfnet.types import VideoItem, Views


def tiny(recipe, *overrides):
    return load_recipe(recipe, [*TINY, "train.epochs=1", *overrides])


@pytest.fixture(scope="module")
def best_run(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "best"
    train(read_dataset(video_folder), tiny("best"), folder)
    return folder


def test_recipe_best_trains_and_its_weights_recognize(best_run, video_folder):
    assert 0 < Run(best_run).history[0]["train_loss"] < 10
    weights = load_weights(best_run)
    assert weights.preprocessing == tiny("best").preprocessing()
    recognizer = Recognizer.load(best_run)
    video = next(video_folder.rglob("*.m*"))
    prediction = recognizer(video, views=Views(2, 3))
    assert prediction.error is None
    assert sum(score for _, score in prediction.predictions) == pytest.approx(1, abs=1e-5)
    assert evaluate_dataset(best_run, video_folder).video == Run(best_run).result.video


@pytest.mark.parametrize("kind", ["rgb_diff", "rgb+rgb_diff"])
def test_training_scoring_and_prediction_see_the_same_input(video_folder, tmp_path, kind):
    recipe = tiny("small", f"clip.input={kind}", "clip.eval_sampling=dense", "clip.train_sampling=dense")
    train(read_dataset(video_folder), recipe, tmp_path / "run")
    weights = load_weights(tmp_path / "run")
    assert weights.kwargs.get("in_chans") == recipe.preprocessing().channels
    assert weights.preprocessing.input == kind
    still = torch.zeros(1, recipe.preprocessing().channels, 4, 32, 32)
    assert weights.model(still).isfinite().all()
    assert not evaluate_dataset(tmp_path / "run", video_folder).unreadable


def test_the_default_input_adds_no_argument():
    assert load_recipe("paper").model_kwargs() == {"width_mult": 1.0, "num_frames": 8, "img_size": 112}
    assert load_recipe("paper", ["clip.input=rgb_diff"]).model_kwargs()["in_chans"] == 3


def test_cost_is_that_of_the_input(tmp_path):
    """A stem of six channels multiplies more than one of three."""
    items = [VideoItem(tmp_path / f"{i}.mp4", label, "train") for i, label in enumerate("ab")]
    facts = {item.path: VideoInfo(str(item.path), 0) for item in items}
    costs = [
        estimate_cost(tiny("small", f"clip.input={kind}"), items, facts, torch.device("cpu"))
        for kind in ("rgb", "rgb+rgb_diff")
    ]
    assert costs[1].multiply_adds > costs[0].multiply_adds


def test_averaged_weights_resume_bit_for_bit(video_folder, tmp_path):
    data, whole, parts = read_dataset(video_folder), tmp_path / "whole", tmp_path / "parts"
    recipe = tiny("small", "train.ema_decay=0.9", "train.epochs=3")
    train(data, recipe, whole)

    class StopError(Exception):
        pass

    def stop_after_two(line):
        if line.startswith("epoch   2/3"):
            raise StopError

    with pytest.raises(StopError), logged(stop_after_two):
        train(data, recipe, parts)
    resume(parts)
    assert [row["val_loss"] for row in Run(parts).history] == [row["val_loss"] for row in Run(whole).history]
    a, b = load_weights(whole).model.state_dict(), load_weights(parts).model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_averaged_weights_are_saved_and_do_not_change_training(video_folder, tmp_path):
    data, last_epoch = read_dataset(video_folder), "data.val_fraction=0"
    averaged, plain = (
        train(data, tiny("small", last_epoch, "train.epochs=2", f"train.ema_decay={decay}"), tmp_path / str(decay))
        for decay in (0.9, 0)
    )
    assert [row["train_loss"] for row in averaged.history] == [row["train_loss"] for row in plain.history]
    state = load_checkpoint(averaged.folder / CHECKPOINT)
    saved = load_weights(averaged.weights).model.state_dict()
    assert all(torch.equal(saved[key], value) for key, value in state["average"]["average"].items())
    assert not torch.equal(saved["fc.weight"], state["model"]["fc.weight"])


def test_stochastic_depth_and_zero_init_are_reached_by_a_recipe():
    recipe = load_recipe("small", ["model.kwargs.drop_path_rate=0.2", "model.kwargs.zero_init_residual=true"])
    model = create_model(recipe.model.name, 3, **recipe.model_kwargs())
    assert model.layer4[1].drop_path.rate == pytest.approx(0.2)
    assert not model.layer4[1].conv2[-1].weight.any()
