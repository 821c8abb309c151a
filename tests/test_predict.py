"""Recognizing videos: a prediction or a reason for each, in order, from files and from memory."""

import io
import json
import tempfile
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from conftest import moving_square, write_lossless
from safetensors.torch import load_file, save_file
from torch import nn

import msfnet
from msfnet.inference.fused import FrozenConv3d
from msfnet.inference.network import choose_device, load_network
from msfnet.inference.recognizer import CLIPS_CPU, MAX_THREADS, Recognizer
from msfnet.inference.sources import find_sources
from msfnet.models.checkpoint import Checkpoint, header_of, load_weights, save_weights
from msfnet.types import Prediction, UserError, Views


@pytest.fixture(scope="module")
def recognizer(tiny_run):
    return Recognizer.load(tiny_run)


@pytest.fixture(scope="module")
def at_ten(tiny_run):
    """The same network, as if it had been trained at ten frames per second."""
    weights = load_weights(tiny_run)
    preprocessing = replace(weights.preprocessing, eval_sampling="dense", frame_interval=1, fps=10.0)
    return Recognizer.load(replace(weights, preprocessing=preprocessing))


@pytest.fixture
def video(video_folder):
    return video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def assert_same(found, expected):
    assert found.error is None
    assert dict(found.predictions) == pytest.approx(dict(expected.predictions), abs=1e-4)


# One video


def test_one_video(recognizer, video):
    prediction = recognizer(video)
    assert prediction.path == str(video)
    assert set(prediction.labels) == {"GoLeft", "GoRight"}
    assert prediction.labels == tuple(label for label, _ in prediction.predictions)
    scores = [score for _, score in prediction.predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert prediction == recognizer(str(video))
    assert len(recognizer(video, top_k=1, views=Views(3, 3)).predictions) == 1
    assert recognizer(video, views="3x3") == recognizer(video, views=Views(3, 3)) != prediction
    assert isinstance(recognizer, msfnet.Recognizer)


def test_an_unreadable_video_has_an_error_and_raises_nothing(recognizer, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    for source in (tmp_path / "bad.mp4", b"no", io.BytesIO(b"no")):
        prediction = recognizer(source)
        assert (prediction.labels, prediction.predictions) == ((), ())
        assert "cannot be read as a video" in prediction.error
    assert recognizer(b"").error == "the file is empty"
    assert "No such file" in recognizer(tmp_path / "absent.mp4").error


def test_a_short_video_is_recognized_with_a_warning(recognizer, tmp_path):
    write_lossless(tmp_path / "s.mkv", moving_square(2))
    prediction = recognizer(tmp_path / "s.mkv")
    assert prediction.error is None
    assert prediction.warning == "2 frames, shorter than a clip of 4; the last frame is repeated"


def test_videos_are_sampled_at_the_networks_frame_rate(at_ten, recognizer, tmp_path):
    """To a network of ten frames per second, a video of thirty is the same as that of every third of its frames."""
    frames = moving_square(45)
    write_lossless(tmp_path / "thirty.mkv", frames, 30)
    write_lossless(tmp_path / "ten.mkv", frames[1::3], 10)
    found = at_ten(tmp_path / "thirty.mkv")
    assert found.predictions == at_ten(tmp_path / "ten.mkv").predictions
    assert found.predictions != recognizer(tmp_path / "thirty.mkv").predictions
    write_lossless(tmp_path / "short.mkv", frames[:9], 30)
    warning = at_ten(tmp_path / "short.mkv").warning
    assert warning == "3 frames at 10 fps, shorter than a clip of 4; the last frame is repeated"


@pytest.mark.parametrize(("arguments", "message"), [({"top_k": 0}, "top_k of 1"), ({"views": "4"}, "CLIPSxCROPS")])
def test_wrong_arguments_are_refused_at_once(recognizer, video, arguments, message):
    with pytest.raises(UserError, match=message):
        recognizer(video, **arguments)
    with pytest.raises(UserError, match=message):
        recognizer.predict_many([video], **arguments)


# From memory


def test_bytes_and_open_files_are_recognized_as_the_file(recognizer, video, tmp_path):
    expected, content = recognizer(video), video.read_bytes()
    assert replace(recognizer(content), path=str(video)) == expected
    assert recognizer(content).path == "<bytes>"
    for source in (bytearray(content), memoryview(content), io.BytesIO(content)):
        assert recognizer(source).predictions == expected.predictions
    with video.open("rb") as file:
        file.read(1000)
        found = recognizer(file)  # from its beginning
        assert (found.path, found.predictions) == (str(video), expected.predictions)
        assert not file.closed
        assert recognizer(file) == found
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        assert recognizer(file).predictions == expected.predictions


class Stream(io.RawIOBase):
    """A stream that cannot seek, like a response over the network."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.file.readinto(buffer)


def test_a_stream_that_cannot_seek_is_read_whole(recognizer, video):
    found = recognizer(io.BufferedReader(Stream(video.read_bytes())))
    assert (found.path, found.predictions) == ("<file>", recognizer(video).predictions)


def test_arrays_are_recognized_as_the_file(recognizer, at_ten, tmp_path):
    frames = moving_square(45)
    write_lossless(tmp_path / "v.mkv", frames, 30)
    for network in (recognizer, at_ten):
        expected = network(tmp_path / "v.mkv")
        assert_same(network(frames, fps=30.0), expected)
        assert_same(network(torch.from_numpy(frames), fps=30.0), expected)
    assert recognizer(frames).path == "<array>"
    assert at_ten(frames, fps=30.0).predictions != at_ten(frames, fps=60.0).predictions
    assert recognizer(frames[:2]).warning.startswith("2 frames, shorter")
    assert recognizer(frames[::-1, :, ::-1]).error is None  # not contiguous


@pytest.mark.parametrize(
    ("source", "fps", "message"),
    [
        (np.zeros((4, 8, 8, 3)), 25.0, r"expected frames uint8 T H W 3, found float64 of shape \(4, 8, 8, 3\)"),
        (torch.zeros(4, 8, 8, 3), 25.0, "found float32"),
        (np.zeros((3, 4, 8, 8), np.uint8), 25.0, r"of shape \(3, 4, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), 25.0, r"of shape \(8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), 25.0, r"of shape \(0, 8, 8, 3\)"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, "trained at 10 fps; pass it, for example fps=25.0"),
        (np.zeros((4, 8, 8, 3), np.uint8), 0, "expected fps above 0, found 0"),
        (np.zeros((4, 8, 8, 3), np.uint8), float("nan"), "expected fps above 0, found nan"),
        (7, None, "expected a path, bytes, a file .* found int"),
        (io.StringIO("text"), None, "found StringIO"),
    ],
)
def test_what_is_no_video_is_refused(at_ten, source, fps, message):
    for call in (lambda: at_ten(source, fps=fps), lambda: list(at_ten.predict_many([source], fps=fps))):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


# Many videos


def test_a_list_gives_a_list_in_order_with_reasons_for_bad_ones(recognizer, video_folder, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    paths = [*sorted((video_folder / "GoLeft").iterdir()), tmp_path / "bad.mp4", tmp_path / "absent.mp4"]
    predictions = list(recognizer.predict_many(paths))
    assert [p.path for p in predictions] == [str(path) for path in paths]
    assert [p.error is None for p in predictions] == [True] * 10 + [False] * 2
    assert recognizer(paths) == recognizer(tuple(paths)) == predictions
    assert recognizer([]) == []
    mixed = recognizer([paths[0], paths[0].read_bytes(), frames_of(paths[0])])
    assert [p.path for p in mixed] == [str(paths[0]), "<bytes>", "<array>"]
    assert mixed[0].predictions == mixed[1].predictions


def test_every_hostile_file_has_one_line(recognizer, real_data):
    paths = sorted((real_data / "robustness").iterdir())
    predictions = list(recognizer.predict_many(paths))
    assert len(predictions) == len(paths)
    assert sum(p.error is not None for p in predictions) == 4
    for prediction in predictions:
        assert bool(prediction.predictions) != bool(prediction.error)
        assert "\n" not in (prediction.error or "")
        assert json.loads(prediction.to_json())["path"] == prediction.path


def test_hostile_files_in_memory_are_as_those_on_disk(recognizer, real_data):
    paths = [path for path in sorted((real_data / "robustness").iterdir()) if path.is_file()]
    on_disk, in_memory = recognizer(paths), recognizer([path.read_bytes() for path in paths])
    assert [p.error is None for p in in_memory] == [p.error is None for p in on_disk]
    assert [p.predictions for p in in_memory] == [p.predictions for p in on_disk]


@pytest.mark.parametrize("views", [Views(1, 1), Views(3, 1), Views(2, 3)])
def test_videos_of_one_batch_are_predicted_as_alone(recognizer, video_folder, tmp_path, views):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    write_lossless(tmp_path / "s.mkv", moving_square(2))
    videos = sorted((video_folder / "GoLeft").iterdir())
    paths = [*videos[:2], tmp_path / "bad.mp4", videos[2], tmp_path / "s.mkv", tmp_path / "absent.mp4", *videos[3:]]
    for path, found in zip(paths, recognizer.predict_many(paths, views=views), strict=True):
        alone = recognizer(path, views=views)
        assert (found.path, found.error, found.warning) == (alone.path, alone.error, alone.warning)
        assert dict(found.predictions) == pytest.approx(dict(alone.predictions), abs=1e-5)


def test_a_batch_of_unreadable_files_only(recognizer, tmp_path):
    predictions = list(recognizer.predict_many([tmp_path / str(i) for i in range(9)], views=Views(1, 1)))
    assert [bool(p.error) for p in predictions] == [True] * 9
    assert list(recognizer.predict_many([])) == []


def test_few_videos_are_read_ahead_and_none_after_the_end(recognizer, video, monkeypatch):
    asked, read = [], []
    own = recognizer._read
    monkeypatch.setattr(recognizer, "_read", lambda reader, clips: read.append(reader) or own(reader, clips))
    predictions = recognizer.predict_many((asked.append(i) or video for i in range(1000)), views=Views(1, 1))
    next(predictions)
    assert len(asked) <= 2 * MAX_THREADS + CLIPS_CPU + 1
    predictions.close()
    assert len(asked) < 1000
    assert len(read) <= len(asked)


# Weights


def test_weights_without_a_frame_rate_load(tiny_run, tmp_path):
    """The header of files from before there was an `fps` lacks it: every frame is taken."""
    weights = load_weights(tiny_run)
    header = json.loads(header_of(weights))
    assert header["preprocessing"].pop("fps") == 0
    metadata = {"msfnet": json.dumps(header)}
    save_file(load_file(tiny_run / "weights.safetensors"), tmp_path / "old.safetensors", metadata=metadata)
    assert load_weights(tmp_path / "old.safetensors").preprocessing == weights.preprocessing


def test_run_folder_file_and_checkpoint_are_the_same_weights(tiny_run, recognizer, video):
    weights = load_weights(tiny_run)
    before = {key: value.clone() for key, value in weights.model.state_dict().items()}
    expected = recognizer(video)
    for source in (tiny_run / "weights.safetensors", str(tiny_run), weights):
        assert Recognizer.load(source)(video) == expected
    assert all(torch.equal(before[key], value) for key, value in weights.model.state_dict().items())


class Foreign(nn.Module):
    """A network that msfnet does not know, without a single parameter outside convolutions and norms."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(3, 8, 3, 2, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 2, 1))

    def forward(self, x):
        return self.features(x).mean((2, 3, 4))


def test_any_module_can_be_recognized_with(tiny_run, video):
    preprocessing = load_weights(tiny_run).preprocessing
    own = Recognizer.load(Checkpoint(Foreign(), "foreign", {}, ("GoLeft", "GoRight"), preprocessing, {}))
    assert sum(isinstance(module, FrozenConv3d) for module in own.model.modules()) == 2
    assert set(own(video).labels) == {"GoLeft", "GoRight"}


def test_a_frame_rate_of_its_own_is_kept_in_the_file(at_ten, tiny_run, tmp_path):
    weights = load_weights(tiny_run)
    save_weights(tmp_path / "w.safetensors", replace(weights, preprocessing=at_ten.preprocessing))
    assert Recognizer.load(tmp_path / "w.safetensors").preprocessing == at_ten.preprocessing


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1", "meta"])
def test_devices_that_do_not_exist(tiny_run, device):
    with pytest.raises(UserError, match=f"expected .*, found '?{device}"):
        load_network(tiny_run, device)


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch, tiny_run):
    assert Recognizer.load(tiny_run, "cpu").device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")


# What words name


def test_find_sources(tmp_path):
    for name in ("a.mp4", "sub/b.AVI", "sub/c.m4a", "sub/d", "notes.txt", "e.jpg", ".hidden.mp4", "sub/f.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in find_sources([str(tmp_path)])]
    assert names == ["a.mp4", "b.AVI", "c.m4a", "d"]  # c and d may be videos, and are reported if they are not
    assert [p.name for p in find_sources([str(tmp_path / "**" / "*.AVI")])] == ["b.AVI"]
    assert [p.name for p in find_sources([str(tmp_path / "notes.txt")])] == ["notes.txt"]  # named, so tried
    assert len(find_sources([str(tmp_path / "a.mp4"), str(tmp_path / "*.mp4")])) == 1


def test_files_of_a_run_folder_are_no_sources(tmp_path):
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "a.mp4").touch()
    for name in (
        *("recipe.toml", "weights.safetensors", "split.csv", "scores.json", "report.html", "net.onnx"),
        *("logs/hparams.yaml", "logs/events.out.tfevents.1700000000.host.1.0"),
    ):
        (tmp_path / "run" / name).touch()
    assert find_sources([str(tmp_path)]) == [tmp_path / "a.mp4"]


def test_a_folder_of_images_is_one_source(tmp_path):
    for name in (
        *("clip/img_1.jpg", "clip/img_2.jpg", "clip/times", "sub/other/1.png", "a.mp4", ".git/HEAD"),
        *("cover/x.mp4", "cover/x.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_sources([str(tmp_path / "clip")]) == [tmp_path / "clip"]
    found = [path.relative_to(tmp_path).as_posix() for path in find_sources([str(tmp_path)])]
    assert found == ["a.mp4", "clip", "cover/x.mp4", "sub/other"]
    assert find_sources([str(tmp_path / "c*")]) == [tmp_path / "clip"]


@pytest.mark.parametrize("source", ["nowhere.mp4", "*.nothing", "nowhere/"])
def test_sources_that_name_nothing(source):
    with pytest.raises(UserError, match="expected a video, a folder with videos or a glob"):
        find_sources([source])


def test_a_prediction_as_json():
    prediction = Prediction("ä.mp4", (("Run", 0.75),), warning="damaged")
    values = {"path": "ä.mp4", "predictions": [{"label": "Run", "score": 0.75}], "error": None, "warning": "damaged"}
    assert json.loads(prediction.to_json()) == values
