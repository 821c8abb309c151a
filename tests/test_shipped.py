"""The network that comes with msfnet: found without being named, and as good as its card says."""

import json
import re
from pathlib import Path

import pytest
from test_cli import run

from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import read_header
from msfnet.run_folder import SHIPPED, names_weights, split_words, weights_file
from msfnet.types import UserError

CARD = Path(__file__).parent.parent / "docs" / "pretrained-model.md"
MOST_BYTES = 25 * 10**6


def test_words_that_name_weights(tmp_path):
    for name in ("begun/recipe.toml", "done/weights.safetensors", "videos/a.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    named = {"begun": True, "done": True, "videos": False, "videos/a.mp4": False}
    named |= {"none": True, "none*": False, "none.mp4": False, "none.ONNX": True}
    assert {word: names_weights(str(tmp_path / word)) for word in named} == named
    assert names_weights(SHIPPED)
    assert split_words(["a.xml", "b.mp4", "c.xml"]) == (Path("a.xml"), ["b.mp4", "c.xml"])
    assert split_words(["b.mp4", "c.xml"]) == (Path(SHIPPED), ["b.mp4", "c.xml"])
    for words in ([], ["a.xml"]):
        with pytest.raises(UserError, match="expected videos"):
            split_words(words)


def test_a_file_of_the_name_comes_before_the_network(tmp_path, monkeypatch):
    assert weights_file(Path(SHIPPED)).stat().st_size <= MOST_BYTES
    monkeypatch.chdir(tmp_path)
    Path(SHIPPED).touch()
    assert weights_file(Path(SHIPPED)) == Path(SHIPPED)


def test_predict_without_weights_says_which_it_takes(capsys, video_folder):
    video = next((video_folder / "GoLeft").iterdir())
    code, out, err = run(capsys, "predict", video, "--json")
    assert code == 0
    assert SHIPPED in err
    classes = read_header(weights_file(Path(SHIPPED)))["classes"]
    assert {answer["label"] for answer in json.loads(out)["predictions"]} <= set(classes)
    assert len(classes) == 18
    assert run(capsys, "predict", SHIPPED, video, "--json")[1] == out
    assert Recognizer.load().classes == tuple(classes)


def test_videos_as_they_were_published_show_it_the_motion_it_knows(real_data):
    """These have 25 frames a second; what it learned from has a third of them."""
    found = [Recognizer.load().predict(path, top=1) for path in sorted((real_data / "ucf101-original").iterdir())]
    assert [answer.predictions[0][0] for answer in found][1:] == ["BasketballDunk", "Punch", "Surfing"]


@pytest.mark.slow
def test_the_card_says_what_the_test_clips_say(capsys, real_data):
    code, out, _ = run(capsys, "evaluate", SHIPPED, real_data / "ucf101-18", "--split", "1", "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["n_videos"] == 498
    card = CARD.read_text(encoding="utf-8")
    for kind in ("clip", "video"):
        told = re.search(rf"^\| {kind} \| ([\d.]+)% \| ([\d.]+)% \|", card, re.MULTILINE)
        # A clip whose two best classes are as good as equal falls differently on another machine.
        assert [100 * scores[kind][top] for top in ("top1", "top5")] == pytest.approx(
            [float(share) for share in told.groups()], abs=0.25
        )
