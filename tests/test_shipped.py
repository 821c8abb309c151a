"""The bundled network: found without being named, and as accurate as its card says."""

import json
import re
from pathlib import Path

import pytest
from test_cli import run

from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import read_header
from msfnet.run_folder import BUNDLED, resolve_weights

CARD = Path(__file__).parent.parent / "docs" / "pretrained-model.md"
MAX_BYTES = 25 * 10**6


def test_a_file_of_the_name_comes_before_the_bundled_weights(tmp_path, monkeypatch):
    assert resolve_weights(Path(BUNDLED)).stat().st_size <= MAX_BYTES
    monkeypatch.chdir(tmp_path)
    Path(BUNDLED).touch()
    assert resolve_weights(Path(BUNDLED)) == Path(BUNDLED)


def test_predict_without_weights_names_those_it_takes(capsys, video_folder):
    video = next((video_folder / "GoLeft").iterdir())
    code, out, err = run(capsys, "predict", video, "--json")
    assert code == 0
    assert BUNDLED in err
    classes = read_header(resolve_weights(Path(BUNDLED)))["classes"]
    assert {prediction["label"] for prediction in json.loads(out)["predictions"]} <= set(classes)
    assert len(classes) == 18
    assert run(capsys, "predict", BUNDLED, video, "--json")[1] == out
    assert Recognizer.load().classes == tuple(classes)


def test_videos_of_another_frame_rate_are_recognized(real_data):
    """These have 25 frames per second, the training videos a third of that."""
    found = [Recognizer.load()(path, top_k=1) for path in sorted((real_data / "ucf101-original").iterdir())]
    assert [prediction.labels[0] for prediction in found][1:] == ["BasketballDunk", "Punch", "Surfing"]


@pytest.mark.slow
def test_the_card_has_the_scores_of_the_test_split(capsys, real_data):
    code, out, _ = run(capsys, "evaluate", BUNDLED, real_data / "ucf101-18", "--split", "1", "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["n_videos"] == 498
    card = CARD.read_text(encoding="utf-8")
    for kind in ("clip", "video"):
        stated = re.search(rf"^\| {kind} \| ([\d.]+)% \| ([\d.]+)% \|", card, re.MULTILINE)
        # A clip whose two best classes are almost equal is predicted differently on another machine.
        assert [100 * scores[kind][top] for top in ("top1", "top5")] == pytest.approx(
            [float(share) for share in stated.groups()], abs=0.25
        )
