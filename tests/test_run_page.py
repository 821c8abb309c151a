"""A run's page, made anew from what lies in its folder, whole or not."""

import re
import shutil

import pytest

from msfnet.cli import main
from msfnet.training.report import report_run
from msfnet.types import UserError


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def page_of(folder):
    """The page, written elsewhere than into the folder."""
    return report_run(folder, folder.parent / "pages" / "run.html").read_text("utf-8")


def test_the_command_makes_the_page_of_a_run_anew_as_training_left_it(run, capsys):
    before = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    with pytest.raises(SystemExit) as end:
        main(["report", str(run)])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_text("utf-8") == before
    assert {"Training curves", "Accuracy per class", "Confusion matrix", "Step time"} <= set(
        re.findall("<h2>(.*)</h2>", before)
    )
    assert "data:image/jpeg" in before
    assert len(before) < 1_000_000


def test_parts_that_are_missing_are_left_out(run):
    for name in ("scores.json", "weights.safetensors", "unreadable.json", "environment.json"):
        (run / name).unlink()
    text = page_of(run)
    assert "Training curves" in text
    assert not [title for title in ("Confusion matrix", "best weights", "Unreadable") if title in text]


def test_unreadable_and_removed_videos_are_named(run):
    (run / "unreadable.json").write_text('{"/data/broken.mp4": "no video stream"}', "utf-8")
    (run / "metrics.csv").write_text(
        "epoch,lr,train_loss,train_top1,val_loss,val_top1,seconds,data_seconds,forward_seconds\n"
        "1,0.1,2,0.1,2,0.1,5,1,3\n2,0.1,1,0.2,,,5,1,3\n",
        "utf-8",
    )
    text = (run / "scores.json").read_text("utf-8").replace(".mp4", ".gone")
    (run / "scores.json").write_text(text, "utf-8")
    page = page_of(run)
    assert "/data/broken.mp4" in page
    assert "data loading</td>" in page
    assert "data:image/jpeg" not in page
    assert ".gone" in page


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scores.json", '{"classes": [', "expected JSON"),
        ("scores.json", "[]", "expected a JSON object"),
        ("scores.json", "{}", "expected scores"),
        ("metrics.csv", "epoch,lr\nx,1\n", "expected numbers"),
        ("metrics.csv", "epoch,lr\n1,1,3,4\n", "expected numbers"),
        ("metrics.csv", "lr\n1\n", "column epoch"),
        ("recipe.toml", "[model", "not valid TOML"),
        ("recipe.toml", "[model]\nwings = 2\n", "no recipe key"),
        ("weights.safetensors", "no weights", "expected weights"),
    ],
)
def test_damage_is_told_in_one_line(run, name, text, message):
    (run / name).write_text(text, "utf-8")
    with pytest.raises(UserError, match=message) as error:
        report_run(run)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a run"):
        report_run(tmp_path)
