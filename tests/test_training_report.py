"""The page of a run, written again from the files of its folder, whether these are complete or not."""

import re
import shutil

import pytest

from msfnet.cli import main
from msfnet.run_folder import ENVIRONMENT, METRICS, REPORT, SCORES, UNREADABLE, WEIGHTS, write_history
from msfnet.training.report import write_report
from msfnet.types import UserError


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def page_of(folder):
    """The page, written to another folder than that of the run."""
    return write_report(folder, folder.parent / "pages" / "run.html").read_text("utf-8")


def test_the_command_writes_the_page_as_training_did(run, capsys):
    before = (run / REPORT).read_text("utf-8")
    (run / REPORT).unlink()
    with pytest.raises(SystemExit) as end:
        main(["report", str(run)])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == str(run / REPORT)
    assert (run / REPORT).read_text("utf-8") == before
    titles = {"Training curves", "Accuracy per class", "Confusion matrix", "Step time"}
    assert titles <= set(re.findall("<h2>(.*)</h2>", before))
    assert "data:image/jpeg" in before
    assert len(before) < 1_000_000


def test_missing_files_leave_out_their_sections(run):
    for name in (SCORES, WEIGHTS, UNREADABLE, ENVIRONMENT):
        (run / name).unlink()
    text = page_of(run)
    assert "Training curves" in text
    assert not [title for title in ("Confusion matrix", "best weights", "Unreadable") if title in text]


def test_unreadable_and_removed_videos_are_named(run):
    (run / UNREADABLE).write_text('{"/data/broken.mp4": "no video stream"}', "utf-8")
    write_history(run, [{"epoch": 1, "lr": 0.1, "train_loss": 2, "data_seconds": 1, "forward_seconds": 3}])
    (run / SCORES).write_text((run / SCORES).read_text("utf-8").replace(".mp4", ".gone"), "utf-8")
    page = page_of(run)
    assert "/data/broken.mp4" in page
    assert "Step time" in page
    assert "data:image/jpeg" not in page
    assert ".gone" in page


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (SCORES, '{"classes": [', "expected JSON"),
        (METRICS, "epoch,lr\nx,1\n", "expected numbers"),
        ("recipe.toml", "[model", "not valid TOML"),
        ("recipe.toml", "[model]\nwings = 2\n", "no recipe key"),
        (WEIGHTS, "no weights", "expected weights"),
    ],
)
def test_damage_is_reported_in_one_line(run, name, text, message):
    (run / name).write_text(text, "utf-8")
    with pytest.raises(UserError, match=message) as error:
        write_report(run)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a run"):
        write_report(tmp_path)
