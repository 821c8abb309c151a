"""The public functions: what they accept as data and weights, what they return, and that they print nothing."""

import logging

import numpy as np
import pytest
import torch
from conftest import TINY, moving_square, write_lossless
from torch import nn

import msfnet
from msfnet.models.registry import MODELS

VIDEO = "GoLeft/v_GoLeft_g01_c01.mp4"


class Pooled(nn.Module):
    """The smallest network: the average color of a clip, and a linear layer."""

    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3, 4)))


@pytest.fixture
def _own_models():
    """Networks that a test registers are gone after it."""
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


# Training


def test_train_returns_a_run(video_folder, tmp_path, capfd):
    """With a recipe from keywords, settings as a mapping, and nothing printed."""
    recipe = msfnet.load_recipe("small", TINY)
    run = msfnet.train(
        str(video_folder), recipe=recipe, model="r3d_18", set={"train.epochs": 1}, out=tmp_path / "run", device="cpu"
    )
    assert isinstance(run, msfnet.Run)
    assert run.folder == tmp_path / "run"
    assert run.weights.is_file()
    assert isinstance(run.result, msfnet.EvalResult)
    assert len(run.history) == 1
    assert msfnet.load_recipe(run.folder / "recipe.toml").model.name == "r3d_18"
    assert msfnet.resume(run).result.video == run.result.video
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.usefixtures("_own_models")
@pytest.mark.parametrize("model", [Pooled, Pooled(2)], ids=["maker", "module"])
def test_train_a_network_of_ones_own(video_folder, tmp_path, model):
    """A module starts from the weights that it has; the recipe's width does not apply to either."""
    dataset = msfnet.read_dataset(video_folder)
    run = msfnet.train(dataset, model=model, set=[*TINY[1:], "optim.lr=1e-9", "augment.mixup=0"], out=tmp_path / "run")
    result = msfnet.evaluate(run, dataset)
    assert run.result.video == result.video
    checkpoint = msfnet.Recognizer.load(run).checkpoint
    assert (checkpoint.name, checkpoint.classes) == ("Pooled", ("GoLeft", "GoRight"))
    if isinstance(model, nn.Module):
        trained = checkpoint.model.state_dict()
        torch.testing.assert_close([*trained.values()], [*model.state_dict().values()], atol=1e-4, rtol=0)


@pytest.mark.usefixtures("_own_models")
def test_train_needs_an_output_for_each_class(video_folder, tmp_path):
    with pytest.raises(msfnet.UserError, match=r"Pooled: expected logits N K of shape \(4, 2\), found \(4, 3\)"):
        msfnet.train(video_folder, model=Pooled(3), set=TINY[1:], out=tmp_path / "run")


def test_train_pretrained_from_a_run(tiny_run, video_folder, tmp_path):
    settings = {"train.epochs": 1, "optim.lr": 1e-9}
    recipe = msfnet.load_recipe(tiny_run / "recipe.toml")
    run = msfnet.train(video_folder, recipe=recipe, pretrained=msfnet.Run(tiny_run), set=settings, out=tmp_path / "run")
    assert run.result.video == msfnet.Run(tiny_run).result.video


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "smal"}, "did you mean small"),
        ({"model": "r3d81"}, "did you mean r3d_18"),
        ({"set": {"optim.rl": 1}}, "did you mean optim.lr"),
        ({"set": ["optim.lr"]}, "expected --set table.key=value"),
        ({"device": "tpu"}, "expected a device"),
        ({"groups": "camera"}, "matches paths"),
        ({"split": 2, "annotations": "nowhere"}, "nowhere"),
    ],
)
def test_train_mistakes(video_folder, tmp_path, options, message):
    with pytest.raises(msfnet.UserError, match=message):
        msfnet.train(video_folder, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 3}, "expected data as a path, a URL or a Dataset, found int"),
        ({"data": "nowhere", "model": 3}, "expected model as a name, an nn.Module, .*, found int"),
    ],
)
def test_train_refuses_values_of_wrong_types(options, message):
    with pytest.raises(msfnet.UserError, match=message):
        msfnet.train(**options)


# Evaluation


def test_evaluate_takes_every_kind_of_weights(tiny_run, video_folder, tmp_path):
    expected = msfnet.evaluate(tiny_run, video_folder, out=tmp_path / "scores")
    checkpoint = msfnet.Recognizer.load(tiny_run).checkpoint
    kinds = (str(tiny_run), msfnet.Run(tiny_run), tiny_run / "weights.safetensors")
    for weights in kinds:
        assert msfnet.evaluate(weights, str(video_folder)).video == expected.video
    everything = msfnet.evaluate(checkpoint, msfnet.read_dataset(video_folder), views="1x1", device="cpu")
    assert (everything.n_videos, str(everything.views)) == (20, "1x1")  # it is not known what it was trained on
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"report.html", "scores.json", "scores.md"}


def test_evaluate_refuses_views_at_once(tiny_run):
    with pytest.raises(msfnet.UserError, match="CLIPSxCROPS"):
        msfnet.evaluate(tiny_run, "nowhere", views="4")


def test_weights_of_wrong_types(video_folder):
    message = "expected weights as a path, a name, a Run or a Checkpoint, found "
    with pytest.raises(msfnet.UserError, match=f"{message}NoneType"):
        msfnet.evaluate(None, video_folder)
    with pytest.raises(msfnet.UserError, match=f"{message}int"):
        msfnet.predict(3, video_folder / VIDEO)


# Prediction


def test_predict_one_or_a_list(tiny_run, video_folder):
    """Folders and globs are allowed in lists, where the number of predictions follows from them."""
    video = video_folder / VIDEO
    one = msfnet.predict(tiny_run, video, top_k=1)
    assert isinstance(one, msfnet.Prediction)
    assert len(one.predictions) == 1
    assert msfnet.predict(tiny_run, [str(video)], top_k=1) == [one]
    many = msfnet.predict(msfnet.Run(tiny_run), [video_folder / "GoLeft", str(video_folder / "GoRight" / "*c01.mp4")])
    assert len(many) == 10 + 5
    with pytest.raises(msfnet.UserError, match=r"found '.*mkv'"):
        msfnet.predict(tiny_run, [str(video_folder / "*.mkv")])


def test_predict_names_what_cannot_be_read(tiny_run, video_folder):
    missing, found = msfnet.predict(tiny_run, ["missing.mp4", video_folder / VIDEO])
    assert "No such file" in missing.error
    assert found.error is None


def test_predict_takes_frames_with_their_rate():
    """The bundled network was trained at a frame rate, so an array of frames needs its own."""
    frames = moving_square(24)
    assert msfnet.predict("msfnet_ucf101_18", frames, fps=25.0, top_k=1).error is None
    with pytest.raises(msfnet.UserError, match="fps"):
        msfnet.predict("msfnet_ucf101_18", frames)


# Clips


def test_read_clips_are_the_frames_and_their_times(tmp_path):
    frames = moving_square(20)
    write_lossless(tmp_path / "a.mkv", frames, fps=10)
    clip = msfnet.read_clips(tmp_path / "a.mkv", num_frames=4, num_clips=2)
    numbers = np.array([[1, 6, 11, 16], [3, 8, 13, 18]])
    np.testing.assert_array_equal(clip.frames, frames[numbers])
    np.testing.assert_allclose(clip.times, numbers / 10)
    assert (clip.warning, clip.padded, clip.video_frames) == (None, False, 20)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"frame_interval": 3}, [5, 8, 11, 14]),
        ({"frame_interval": 99}, [1, 7, 13, 19]),  # the widest that fits
        ({"fps": 5}, [3, 7, 13, 17]),  # the middles of steps of 0.2 seconds
    ],
)
def test_read_clips_options(tmp_path, options, numbers):
    frames = moving_square(20)
    write_lossless(tmp_path / "a.mkv", frames, fps=10)
    clip = msfnet.read_clips(tmp_path / "a.mkv", num_frames=4, **options)
    np.testing.assert_array_equal(clip.frames[0], frames[numbers])
    np.testing.assert_allclose(clip.times[0], np.array(numbers) / 10)


@pytest.mark.parametrize(("size", "shape"), [(None, (48, 64)), (24, (24, 32)), (96, (96, 128)), ((20, 10), (10, 20))])
def test_read_clips_size(tmp_path, size, shape):
    write_lossless(tmp_path / "a.mkv", moving_square(5))
    clip = msfnet.read_clips(tmp_path / "a.mkv", num_frames=2, size=size)
    assert clip.frames.shape == (1, 2, *shape, 3)


def test_read_clips_of_images_have_no_times(tmp_path):
    import av

    for number, image in enumerate(moving_square(6)):
        av.VideoFrame.from_ndarray(image, format="rgb24").to_image().save(tmp_path / f"{number:03d}.png")
    clip = msfnet.read_clips(tmp_path, num_frames=3)
    np.testing.assert_array_equal(clip.frames[0], moving_square(6)[[1, 3, 5]])
    assert clip.times is None


def test_read_clips_mistakes(tmp_path, video_folder):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    with pytest.raises(msfnet.VideoError, match=r"bad\.mp4: cannot be read as a video"):
        msfnet.read_clips(tmp_path / "bad.mp4")
    with pytest.raises(msfnet.VideoError, match=r"^nope\.mp4: "):
        msfnet.read_clips("nope.mp4", size=(20, 10))
    for options in ({"num_frames": 0}, {"frame_interval": 0}, {"size": 0}, {"fps": 0.0}):
        with pytest.raises(msfnet.UserError, match="expected"):
            msfnet.read_clips(video_folder / VIDEO, **options)


# Logging


def test_progress_goes_to_the_logger(tiny_run, video_folder, caplog):
    with caplog.at_level(logging.INFO, logger="msfnet"):
        msfnet.evaluate(tiny_run, video_folder)
    assert any("videos" in record.getMessage() for record in caplog.records)
