"""The files of a run folder: written and read back, damaged, locked, and which videos of a dataset a run has used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from msfnet import run_folder
from msfnet.run_folder import (
    CHECKPOINT,
    COLUMNS,
    METRICS,
    RECIPE,
    SPLIT,
    WEIGHTS,
    RecordedVideo,
    Run,
    can_resume,
    holds_run,
    locked,
    recorded_splits,
    require_run,
    resolve_weights,
    resume_command,
    write_environment,
    write_history,
    write_result,
    write_split,
    write_unreadable,
)
from msfnet.types import UserError, VideoItem

ROWS = [
    {"epoch": 1, "lr": 0.1, "train_loss": 1 / 3, "train_top1": 0.1, "seconds": 1.23456789, "peak_memory_mib": 512.0},
    {"epoch": 2, "lr": 0.1, "train_loss": 0.1 + 0.2, "val_loss": 2 / 3, "val_top1": 1.0, "data_seconds": 0.5},
]


# Writing and reading


def test_metrics_are_read_as_they_were_written(tmp_path):
    """Exactly, where a resumed run compares with them; a value that an epoch does not have is left out."""
    write_history(tmp_path, ROWS)
    assert (tmp_path / METRICS).read_text().splitlines()[0] == ",".join(COLUMNS)
    assert Run(tmp_path).history == [ROWS[0] | {"seconds": 1.23457}, ROWS[1]]


def test_other_files_are_read_as_they_were_written(tiny_run, tmp_path):
    videos = [RecordedVideo('a "b", c/ä.mp4', "Jump, high", "train", "", "ff"), RecordedVideo("x", "y", "val", "g", "")]
    write_split(tmp_path, videos)
    assert Run(tmp_path).split == videos
    write_unreadable(tmp_path, {"ä.mp4": "no video"})
    assert Run(tmp_path).unreadable == {"ä.mp4": "no video"}
    write_environment(tmp_path, {"seed": 3})
    assert Run(tmp_path).environment == {"seed": 3}
    result = Run(tiny_run).result
    write_result(tmp_path, result)
    assert Run(tmp_path).result.to_dict() == result.to_dict()


def test_a_run_without_files_is_empty(tmp_path):
    run = Run(tmp_path)
    assert (run.result, run.history, run.unreadable, run.environment) == (None, [], {}, {})
    with pytest.raises(UserError, match=r"expected a run in .*, found no split\.csv there"):
        _ = run.split


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scores.json", '{"classes": [', "expected JSON in .*scores.json, found a damaged file"),
        ("scores.json", "[]", "expected a JSON object in .*scores.json, found a list"),
        ("unreadable.json", "\xff", "expected JSON in .*unreadable.json"),
        ("metrics.csv", "epoch,lr\nx,1\n", "expected numbers in .*metrics.csv"),
        ("metrics.csv", "epoch,lr\n1,1,3,4\n", "expected numbers in .*metrics.csv"),
        ("metrics.csv", "lr\n1\n", "expected the column epoch in .*metrics.csv"),
        ("split.csv", "path,label\na,b\n", "expected the split of a run in .*split.csv"),
        ("split.csv", "path,label,split,group,fingerprint\na,b\n", "expected the split of a run in .*split.csv"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, "latin-1")
    run = Run(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        _ = (run.unreadable, run.history, run.result, run.split)
    assert "\n" not in str(error.value)


def test_what_a_folder_holds(tmp_path):
    assert not holds_run(tmp_path)
    with pytest.raises(UserError, match=r"expected a run in .*, found no recipe\.toml there"):
        require_run(tmp_path)
    (tmp_path / RECIPE).touch()
    write_history(tmp_path, [])
    assert require_run(tmp_path) == Run(tmp_path)
    assert not can_resume(tmp_path)
    assert not holds_run(tmp_path)
    (tmp_path / CHECKPOINT).parent.mkdir()
    (tmp_path / CHECKPOINT).touch()
    assert can_resume(tmp_path)
    assert holds_run(tmp_path)


def test_weights_are_a_file_or_those_of_a_run(tmp_path):
    with pytest.raises(UserError, match=r"expected weights .*, found none at"):
        resolve_weights(tmp_path)
    (tmp_path / WEIGHTS).touch()
    assert resolve_weights(tmp_path) == resolve_weights(tmp_path / WEIGHTS) == Run(tmp_path).weights


def test_the_command_that_resumes_can_be_pasted():
    assert resume_command(Path("runs/a b")) == "msfnet train --resume 'runs/a b'"


def test_its_import_takes_no_torch():
    """A wrong path is refused before seconds are spent on that import."""
    script = "import sys, msfnet.run_folder; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"


# Locking

HOLDER = """
import sys, time
from pathlib import Path
from msfnet.run_folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_process_ends_with_it(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=r"another process is writing to .*run; wait for it, or choose an"):
            locked(tmp_path / "run").__enter__()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [run_folder.LOCK]
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path / "run"):
        pass


# Videos that a run has used


@pytest.fixture
def used(tmp_path):
    """A run that used five videos in /data, whose contents are their names; two of them are copies of one video."""
    splits = {"Jump/a.mp4": "train", "Jump/b.mp4": "val", "Run/c.mp4": "test", "Run/d.mp4": "train"}
    videos = [RecordedVideo(path, path[:3], split, "", f"content of {path}") for path, split in splits.items()]
    videos.append(RecordedVideo("Run/copy.mp4", "Run", "val", "", "content of Run/d.mp4"))
    write_split(tmp_path, videos)
    write_environment(tmp_path, {"data_root": "/data"})
    return tmp_path


def splits_of(run, contents):
    """The splits of videos, given by path and content."""
    items = [VideoItem(Path(path), "label") for path in contents]
    found = recorded_splits(run, items, lambda path: contents[path.as_posix()])
    return ["+".join(sorted(splits)) for splits in found]


def test_videos_are_recognized_by_content_anywhere(used):
    contents = {
        "/elsewhere/x.mp4": "content of Jump/a.mp4",
        "renamed.mp4": "content of Jump/b.mp4",
        "/data/Run/c.mp4": "content of Run/c.mp4",
        "/other/d.mp4": "content of Run/d.mp4",
        "/other/new.mp4": "content of another",
    }
    assert splits_of(used, contents) == ["train", "val", "test", "train+val", ""]


def test_videos_are_recognized_in_the_place_where_they_were(used):
    """A file that was replaced since is still the video that the run knows under this path."""
    assert splits_of(used, {"/data/Jump/a.mp4": "changed", "/data/Run/../Jump/b.mp4": "changed"}) == ["train", "val"]


def test_another_video_under_the_same_name_is_not_recognized(used):
    """As in new footage that happens to have some names of the old."""
    contents = {"/new/Jump/a.mp4": "content of another", "/new/Jump/k.mp4": "other", "/new/Run/l.mp4": "new"}
    assert splits_of(used, contents) == ["", "", ""]


def test_videos_that_were_encoded_again_are_recognized(used, caplog):
    """A moved dataset with other bytes under the same paths must not pass for unseen videos."""
    contents = {f"/new/{path}": f"again {path}" for path in ("Jump/a.mp4", "Jump/b.mp4", "Run/c.mp4", "Run/new.mp4")}
    assert splits_of(used, contents) == ["train", "val", "test", ""]
    assert "most videos have the paths, but not the content" in caplog.text


def test_videos_without_files_are_recognized_by_path(used, tmp_path):
    """In shards a video has the path that it had below its dataset."""

    def no_file(path):
        raise FileNotFoundError(path)

    items = [VideoItem(Path(path), "label") for path in ("Jump/a.mp4", "Run/c.mp4", "a.mp4", "Swim/a.mp4")]
    assert recorded_splits(used, items, no_file) == [
        frozenset({"train"}),
        frozenset({"test"}),
        frozenset(),
        frozenset(),
    ]


def test_files_are_recognized_by_a_run_on_shards(tmp_path):
    write_split(tmp_path, [RecordedVideo("Jump/a.mp4", "Jump", "train", "", "")])
    assert splits_of(tmp_path, {"/data/Jump/a.mp4": "content", "/data/Jump/b.mp4": "content"}) == ["train", ""]


def test_a_run_without_a_split_used_no_video(tmp_path):
    assert splits_of(tmp_path, {"a.mp4": "content"}) == [""]
    assert not (tmp_path / SPLIT).exists()


def test_json_keeps_letters(tmp_path):
    write_unreadable(tmp_path, {"ä": "ö"})
    assert json.loads((tmp_path / run_folder.UNREADABLE).read_bytes()) == {"ä": "ö"}
    assert "ä" in (tmp_path / run_folder.UNREADABLE).read_text("utf-8")
