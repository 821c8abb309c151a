"""The doctor on planted problems: each is found, nothing else is, and an interrupted examination resumes."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from conftest import page_in_browser, write_lossless
from scenes import scene, shrunk

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset
from msfnet.doctor.cost import estimate_cost
from msfnet.doctor.file_info import VideoInfo
from msfnet.doctor.scan import scan_files
from msfnet.procedural.dataset import write_video
from msfnet.recipe import load_recipe
from msfnet.types import VideoItem

QUICK = ("--set", "model.width_mult=0.125", "--set", "clip.crop_size=32", "--set", "clip.num_frames=8")


def run(capsys, *arguments):
    """Exit code, standard output and standard error of `msfnet doctor`."""
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *map(str, arguments), *QUICK])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


GOOD = [  # name, label, split, group
    ("run1.mp4", "run", "train", "g1"),
    ("run2.mp4", "run", "train", "g2"),
    ("run3.mp4", "run", "test", "g3"),
    ("jump1.mp4", "jump", "train", "g4"),
    ("jump2.mp4", "jump", "test", "g5"),
    ("jump3.mp4", "jump", "test", "g6"),
]
PLANTED = [  # name, label, split, group, and the problem that the doctor finds
    ("corrupt.mp4", "run", "train", "", "unreadable"),
    ("cut off.mkv", "run", "train", "", "damaged"),
    ("short.mkv", "run", "train", "", "short"),
    ("black.mp4", "jump", "train", "", "black"),
    ("static.mp4", "jump", "train", "", "static"),
    ("exact, copy.mp4", "run", "train", "", "duplicate"),
    ("smaller.avi", "run", "train", "", "duplicate"),
    ("of-test.mp4", "jump", "train", "", "leakage"),
    ("jump3 again.mp4", "jump", "train", "g6", "leakage"),
    ("jump1-as-run.mp4", "run", "train", "", "conflicting_label"),
    ("nowhere.mp4", "run", "train", "", "missing"),
    ("later.mp4", "rest", "test", "g7", None),
]


def write_good(folder):
    """Write videos without problems; return their frames by name."""
    folder.mkdir()
    frames = {name: scene(seed, 24, 96, 128) for seed, (name, *_) in enumerate(GOOD)}
    for name, pictures in frames.items():
        write_video(folder / name, pictures, 12)
    return frames


def write_planted(folder):
    frames = write_good(folder)
    (folder / "corrupt.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    write_video(folder / "cut off.mkv", scene(20, 40), 12, codec="mpeg4")
    data = (folder / "cut off.mkv").read_bytes()
    (folder / "cut off.mkv").write_bytes(data[: int(len(data) * 0.85)])
    write_lossless(folder / "short.mkv", scene(21, 5))
    write_video(folder / "black.mp4", np.full((20, 48, 64, 3), 3, np.uint8), 12)
    write_video(folder / "static.mp4", np.repeat(scene(22, 1), 20, axis=0), 12)
    shutil.copy(folder / "run1.mp4", folder / "exact, copy.mp4")
    write_video(folder / "smaller.avi", shrunk(frames["run2.mp4"]), 12, codec="mjpeg", pixel_format="yuvj420p")
    write_video(folder / "of-test.mp4", frames["jump2.mp4"][::2], 6)
    shutil.copy(folder / "jump3.mp4", folder / "jump3 again.mp4")
    write_video(folder / "jump1-as-run.mp4", shrunk(frames["jump1.mp4"]), 12)
    write_video(folder / "later.mp4", scene(23), 12)


def write_manifest(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *(row[:4] for row in rows)])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder of good videos and one of each problem, with a manifest; group g1 has a second video in test."""
    folder = tmp_path_factory.mktemp("planted") / "videos, all"
    write_planted(folder)
    write_video(folder / "run4.mp4", scene(30), 12)
    write_manifest(folder / "manifest.csv", [*GOOD, *PLANTED, ("run4.mp4", "run", "test", "g1")])
    return folder


@pytest.fixture(scope="module")
def examined(planted, tmp_path_factory):
    """Exit code and JSON of the doctor on the planted folder, and the folder with report/ and clean/clean.csv."""
    folder = tmp_path_factory.mktemp("examined")
    arguments = [planted, "--json", "--report", folder / "report", "--out", folder / "clean" / "clean.csv", *QUICK]
    with pytest.raises(SystemExit) as stopped, redirect_stdout(io.StringIO()) as out:
        main(["doctor", *map(str, arguments)])
    return stopped.value.code, json.loads(out.getvalue()), folder


def test_planted_problems_are_found_and_nothing_else(examined, planted):
    code, found, _ = examined
    assert code == 1
    problems = [(p["kind"], p["subject"].removeprefix(f"{planted}{os.sep}")) for p in found["problems"]]
    expected = [(row[4], row[0]) for row in PLANTED if row[4]] + [
        ("group_leakage", "run, g1"),
        ("group_leakage", "jump, g6"),
        ("empty_class", "rest"),
    ]
    expected.append(("conflicting_label", "jump1.mp4"))
    assert sorted(problems) == sorted(expected)
    reasons = {p["subject"].removeprefix(f"{planted}{os.sep}"): p["reason"] for p in found["problems"]}
    assert reasons["exact, copy.mp4"] == f"the same bytes as {planted / 'run1.mp4'}"
    assert reasons["smaller.avi"] == f"the same content as {planted / 'run2.mp4'}"
    assert (
        reasons["of-test.mp4"] == f"the same content as {planted / 'jump2.mp4'} of the test split; this one is in train"
    )
    assert reasons["run, g1"].endswith("1 in test, 1 in train")


def test_json_describes_every_file(examined, planted):
    _, found, folder = examined
    assert found == json.loads((folder / "report" / "doctor.json").read_text(encoding="utf-8"))
    assert found["n_videos"] == len(found["files"]) == len(GOOD) + len(PLANTED)  # one is missing, one was added
    assert found["counts"]["leakage"] == 2
    assert found["n_problems"] == len(found["problems"]) == sum(found["counts"].values())
    assert found["classes"]["jump"] == {"test": 2, "train": 5}
    first = found["files"][0]
    assert first["path"] == str(planted / "run1.mp4")
    assert (first["label"], first["split"], first["group"]) == ("run", "train", "g1")
    wanted = {"codec", "width_px", "height_px", "fps", "constant_fps", "frames", "header_frames", "rotation_degrees"}
    assert wanted | {"duration_seconds", "error", "warning", "size_bytes"} <= first.keys()
    assert (first["codec"], first["fps"], first["frames"], first["header_frames"]) == ("h264", 12, 24, 24)
    assert found["cost"]["epochs"] == 40
    assert found["cost"]["train_seconds"] > 0


def test_clean_manifest(examined, capsys):
    clean = examined[2] / "clean" / "clean.csv"
    kept = {item.path.name: item for item in read_dataset(clean).items}
    expected = {row[0] for row in GOOD} | {"cut off.mkv", "short.mkv", "later.mp4", "run4.mp4"}
    assert set(kept) == expected - {"jump1.mp4"}
    assert (kept["jump3.mp4"].split, kept["jump3.mp4"].group) == ("test", "g6")
    rows = list(csv.DictReader(clean.open(encoding="utf-8")))
    assert not any(os.path.isabs(row["path"]) for row in rows)  # noqa: PTH117
    code, out, err = run(capsys, clean, "--json")
    assert code == 1
    assert sorted(json.loads(out)["counts"]) == ["damaged", "empty_class", "group_leakage", "short"]
    assert "files were scanned before" not in err  # another dataset has another journal


def test_page_in_a_browser(examined):
    with page_in_browser(examined[2] / "report" / "report.html") as page:
        headings = page.locator("h2").all_inner_texts()
        assert headings[:2] == ["Problems found", "Unreadable: cannot be decoded"]
        assert headings[-4:] == ["Classes", "Training cost", "Dataset statistics", "Files"]
        pictures = page.eval_on_selector_all("figure img", "all => all.map(p => [p.naturalWidth, p.naturalHeight])")
        assert len(pictures) == 10  # each problem of a file but for the corrupt one
        assert min(width for width, _ in pictures) > 100
        pairs = page.locator("figcaption", has_text="above ").all_inner_texts()
        assert "above smaller.avi, below run2.mp4" in pairs
        assert page.locator("table").last.locator("tr").count() == 1 + len(GOOD) + len(PLANTED)


def test_dataset_without_problems(tmp_path, capsys, monkeypatch):
    """The exit code is 0, and the second examination decodes nothing."""
    monkeypatch.setattr("msfnet.progress.LINE_SECONDS", 0)
    write_good(tmp_path / "data")
    rows = [(f"../data/{row[0]}", *row[1:]) for row in GOOD]
    (tmp_path / "lists").mkdir()
    write_manifest(tmp_path / "lists" / "good.csv", rows)
    code, out, err = run(capsys, tmp_path / "lists" / "good.csv")
    assert code == 0
    assert out.splitlines()[-1] == "no problems found"
    assert "6 videos of 2 classes from manifest" in out
    assert "training cost: 40 epochs of 3 clips with msf_r3d_18_fsam take" in out
    assert "scanning videos: 6 of 6" in err
    code, again, err = run(capsys, tmp_path / "lists" / "good.csv")
    assert code == 0
    assert "6 files were scanned before" in err
    assert "scanning videos" not in err
    assert again.splitlines()[0] == out.splitlines()[0]


def test_manifest_of_files_without_classes_is_refused(tmp_path, capsys):
    write_lossless(tmp_path / "a.mkv", scene(1))
    for data in (tmp_path, tmp_path / "a.mkv"):
        code, _, err = run(capsys, data, "--out", tmp_path / "clean.csv")
        assert code == 2
        assert "expected videos with classes for --out, found none with a class" in err
        assert "scanning" not in err
    assert not (tmp_path / "clean.csv").exists()


def test_hostile_files(real_data, capsys):
    """No file stops the examination, and copies in eight codecs are found."""
    code, out, _ = run(capsys, real_data / "robustness", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["n_videos"] == 34
    assert found["cost"] is None
    named = {}
    for p in found["problems"]:
        named.setdefault(p["kind"], set()).add(os.path.basename(p["subject"]))  # noqa: PTH119
    assert named == {
        "unreadable": {"audio_only.m4a", "empty.mp4", "random_bytes.avi", "torchcodec__nasa_13013.mp4.audio.mp3"},
        "damaged": {"truncated.avi", "truncated_faststart.mp4"},
        "short": {f"decord__{name}.mov" for name in ("unordered", "video_0", "video_90", "video_180")}
        | {"fps1.mp4", "one_frame.mp4"},
        "black": {"all_black.mp4"},
        # one scene of two seconds in eight codecs and sizes, and one video under two names and at a variable rate
        "duplicate": {"interlaced.mp4", "mpeg2.mpg", "odd_171x127_444.mp4", "portrait_120x160.mp4", "raw_bgr24.avi"}
        | {"vp8.webm", "wmv2.wmv", "paddlevideo__example_ucf.avi", "vfr.mp4"},
    }


# Interruption

SCRIPT = """
import sys
from pathlib import Path
from msfnet.doctor.scan import scan_files
scan_files(sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2]), processes=2)
"""


def test_killed_scan_resumes(tmp_path):
    """Files that were scanned before are overwritten with the same size and date: reading them again would fail."""
    videos, journal = tmp_path / "videos", tmp_path / "journal.jsonl"
    videos.mkdir()
    write_video(tmp_path / "one.mp4", scene(1, 300, 96, 128), 25)
    for i in range(50):
        shutil.copy(tmp_path / "one.mp4", videos / f"{i:03d}.mp4")
    with subprocess.Popen([sys.executable, "-c", SCRIPT, videos, journal]) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    with journal.open("ab") as file:
        file.write(b'[1, "half a li')
    scanned = [json.loads(line)[1].split("|")[0] for line in journal.read_text().splitlines()[:-1]]
    assert 5 <= len(scanned) < 50
    for name in scanned:
        stat = os.stat(name)  # noqa: PTH116
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"x" * stat.st_size)
        os.utime(name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = scan_files(sorted(videos.iterdir()), journal, processes=2)
    assert result.n_known == len(scanned)
    assert len(result.info) == 50
    assert all(info.error is None and info.frames == 300 for info in result.info.values())


def test_files_with_an_error_are_scanned_again(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(b"not yet")
    assert scan_files([path], tmp_path / "j").info[path].error
    date = path.stat().st_mtime_ns
    write_lossless(path, scene(1))
    os.utime(path, ns=(date, date))
    result = scan_files([path, path], tmp_path / "j")
    assert result.info[path].error is None
    assert result.n_known == 0


# Cost


def test_cost(planted, tmp_path):
    import torch

    recipe = load_recipe(
        "small", ["model.width_mult=0.125", "clip.crop_size=32", "clip.num_frames=4", "train.epochs=3"]
    )
    items = [
        item for item in read_dataset(planted).items if item.path.name in ("run1.mp4", "run2.mp4", "jump3 again.mp4")
    ]
    info = scan_files([item.path for item in items], tmp_path / "j").info
    cost = estimate_cost(recipe, items, info, torch.device("cpu"))
    assert cost.clips_per_epoch == 3
    one = estimate_cost(recipe, items[:1], info, torch.device("cpu"))
    assert cost.multiply_adds == pytest.approx(3 * one.multiply_adds, rel=0.01)
    assert cost.cache_bytes == 3 * 24 * 49 * 37 * 3
    assert cost.train_seconds == pytest.approx(cost.seconds_per_clip * 9)


@pytest.mark.parametrize(
    ("counts", "val_fraction", "clips"),
    [
        ({"train": 90, "test": 10}, 0.1, 81),
        ({"train": 90, "val": 10}, 0.1, 90),
        ({"none": 100}, 0.1, 72),
        ({"train": 50, "none": 50, "test": 9}, 0, 100),
    ],
)
def test_cost_uses_the_split_of_training(counts, val_fraction, clips):
    import torch

    names = [(s, i) for s, n in counts.items() for i in range(n)]
    items = [VideoItem(Path(f"{s}{i}"), "a", None if s == "none" else s) for s, i in names]
    info = {item.path: VideoInfo(str(item.path), 0) for item in items}
    recipe = load_recipe("small", ["model.width_mult=0.125", "clip.crop_size=32", f"data.val_fraction={val_fraction}"])
    assert estimate_cost(recipe, items, info, torch.device("cpu")).clips_per_epoch == clips
