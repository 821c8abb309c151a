"""Recognizing files: an answer or a reason for each, in order."""

import json
from dataclasses import replace

import pytest
from conftest import moving_square, write_lossless
from safetensors.torch import load_file, save_file

import msfnet
from msfnet.inference.recognizer import CLIPS_CPU, MOST_THREADS, Recognizer
from msfnet.inference.sources import find_sources
from msfnet.models.checkpoint import header_of, load_weights, save_weights, weights_file
from msfnet.types import UserError, Views


@pytest.fixture(scope="module")
def recognizer(tiny_run):
    return Recognizer.load(tiny_run)


def test_one_video(recognizer, video_folder):
    path = next((video_folder / "GoLeft").iterdir())
    prediction = recognizer.predict(path)
    assert prediction.path == str(path)
    assert {label for label, _ in prediction.predictions} == {"GoLeft", "GoRight"}
    scores = [score for _, score in prediction.predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert prediction == recognizer.predict(str(path))
    assert len(recognizer.predict(path, top=1, views=Views(3, 3)).predictions) == 1
    assert isinstance(recognizer, msfnet.Recognizer)


def test_short_video_is_answered_with_a_warning(recognizer, tmp_path):
    write_lossless(tmp_path / "s.mkv", moving_square(2))
    prediction = recognizer.predict(tmp_path / "s.mkv")
    assert prediction.error is None
    assert prediction.warning == "2 frames, shorter than a clip of 4"


def test_a_network_sees_videos_at_the_rate_that_it_was_trained_at(tiny_run, recognizer, tmp_path):
    """A video of thirty frames a second is to it as the same of ten is; the weights carry the rate."""
    frames = moving_square(45)
    write_lossless(tmp_path / "thirty.mkv", frames, 30)
    write_lossless(tmp_path / "ten.mkv", frames[1::3], 10)
    weights = load_weights(tiny_run)
    own = replace(weights.preprocessing, eval_sampling="dense", frame_interval=1, fps=10.0)
    save_weights(tmp_path / "ten.safetensors", replace(weights, preprocessing=own))
    at_ten = Recognizer.load(tmp_path / "ten.safetensors")
    assert at_ten.weights.preprocessing == own
    seen = at_ten.predict(tmp_path / "thirty.mkv")
    assert seen.predictions == at_ten.predict(tmp_path / "ten.mkv").predictions
    assert seen.predictions != recognizer.predict(tmp_path / "thirty.mkv").predictions
    write_lossless(tmp_path / "short.mkv", frames[:9], 30)
    assert at_ten.predict(tmp_path / "short.mkv").warning == "3 frames at 10 a second, shorter than a clip of 4"


def test_weights_from_before_there_was_a_rate_load(tiny_run, tmp_path):
    """Their header has no `fps`: every frame."""
    weights = load_weights(tiny_run)
    header = json.loads(header_of(weights))
    assert header["preprocessing"].pop("fps") == 0
    metadata = {"msfnet": json.dumps(header)}
    save_file(load_file(weights_file(tiny_run)), tmp_path / "old.safetensors", metadata=metadata)
    assert load_weights(tmp_path / "old.safetensors").preprocessing == weights.preprocessing


def test_many_videos_keep_their_order_and_bad_ones_their_reason(recognizer, video_folder, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    paths = [*sorted((video_folder / "GoLeft").iterdir()), tmp_path / "bad.mp4", tmp_path / "absent.mp4"]
    predictions = list(recognizer.predict_many(paths))
    assert [p.path for p in predictions] == [str(path) for path in paths]
    assert [p.error is None for p in predictions] == [True] * 10 + [False] * 2
    assert "No such file" in predictions[-1].error


def test_every_hostile_file_is_answered_in_one_line(recognizer, real_data):
    paths = sorted((real_data / "robustness").iterdir())
    predictions = list(recognizer.predict_many(paths))
    assert len(predictions) == len(paths)
    assert sum(p.error is not None for p in predictions) == 4
    for prediction in predictions:
        assert bool(prediction.predictions) != bool(prediction.error)
        assert "\n" not in (prediction.error or "")
        assert json.loads(prediction.to_json())["path"] == prediction.path


def test_find_sources(tmp_path):
    for name in ("a.mp4", "sub/b.AVI", "sub/c.m4a", "sub/d", "notes.txt", "e.jpg", ".hidden.mp4", "sub/f.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in find_sources([str(tmp_path)])]
    assert names == ["a.mp4", "b.AVI", "c.m4a", "d"]  # c and d may hold a video and say so if they do not
    assert [p.name for p in find_sources([str(tmp_path / "**" / "*.AVI")])] == ["b.AVI"]
    assert [p.name for p in find_sources([str(tmp_path / "notes.txt")])] == ["notes.txt"]  # named, so tried
    assert len(find_sources([str(tmp_path / "a.mp4"), str(tmp_path / "*.mp4")])) == 1


def test_a_folder_of_images_is_one_source(tmp_path):
    for name in (
        "clip/img_1.jpg",
        "clip/img_2.jpg",
        "clip/times",
        "sub/other/1.png",
        "a.mp4",
        ".git/HEAD",
        "cover/x.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "cover" / "x.jpg").write_bytes(b"")
    assert find_sources([str(tmp_path / "clip")]) == [tmp_path / "clip"]
    found = [path.relative_to(tmp_path).as_posix() for path in find_sources([str(tmp_path)])]
    assert found == ["a.mp4", "clip", "cover/x.mp4", "sub/other"]
    assert find_sources([str(tmp_path / "c*")]) == [tmp_path / "clip"]


@pytest.mark.parametrize("source", ["nowhere.mp4", "*.nothing", "nowhere/"])
def test_sources_that_name_nothing(source):
    with pytest.raises(UserError, match="expected a video, a folder with videos or a glob"):
        find_sources([source])


@pytest.mark.parametrize("views", [Views(1, 1), Views(3, 1), Views(2, 3)])
def test_videos_that_share_a_pass_get_the_answers_they_get_alone(recognizer, video_folder, tmp_path, views):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    write_lossless(tmp_path / "s.mkv", moving_square(2))
    videos = sorted((video_folder / "GoLeft").iterdir())
    paths = [*videos[:2], tmp_path / "bad.mp4", videos[2], tmp_path / "s.mkv", tmp_path / "absent.mp4", *videos[3:]]
    for path, found in zip(paths, recognizer.predict_many(paths, views=views), strict=True):
        alone = recognizer.predict(path, views=views)
        assert (found.path, found.error, found.warning) == (alone.path, alone.error, alone.warning)
        assert dict(found.predictions) == pytest.approx(dict(alone.predictions), abs=1e-5)


def test_a_pass_of_unreadable_files_alone(recognizer, tmp_path):
    predictions = list(recognizer.predict_many([tmp_path / str(i) for i in range(9)], views=Views(1, 1)))
    assert [bool(p.error) for p in predictions] == [True] * 9
    assert list(recognizer.predict_many([])) == []


def test_few_videos_are_ahead_of_who_asks_and_none_goes_on_when_nobody_does(recognizer, video_folder, monkeypatch):
    video, asked, read = next((video_folder / "GoLeft").iterdir()), [], []
    own = recognizer._read
    monkeypatch.setattr(recognizer, "_read", lambda path, clips: read.append(path) or own(path, clips))
    answers = recognizer.predict_many((asked.append(i) or video for i in range(1000)), views=Views(1, 1))
    next(answers)
    assert len(asked) <= 2 * MOST_THREADS + CLIPS_CPU + 1
    answers.close()
    assert len(asked) < 1000
    assert len(read) <= len(asked)
