"""Writing shards: every video once and none lost when interrupted, unreadable ones listed, a correct index."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from conftest import TINY, logged
from hypothesis import given
from hypothesis import strategies as st

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset, read_video_files
from msfnet.data.cache.packed import unpack_frames
from msfnet.data.shards import write as writing
from msfnet.data.shards.index import INDEX, UNFINISHED, Shard, Shards, is_shards, read_shards
from msfnet.data.shards.write import prefetch, write_shards
from msfnet.data.video.decode import read_video
from msfnet.recipe import load_recipe
from msfnet.types import FrameFormat, UserError, VideoItem

RECIPE = load_recipe("small", TINY)
SMALL_BYTES = 40_000  # three or four of these tiny videos


def write(data, out, *, shard_bytes=SMALL_BYTES, recipe=RECIPE):
    return write_shards(read_video_files(data), recipe, data, out, shard_bytes=shard_bytes)


def samples(folder):
    """KEY -> (entry, facts) of every archive, read by the standard library."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        keys = {name.partition(".")[0] for name in files}
        assert set(files) == {f"{key}.{ending}" for key in keys for ending in ("frames", "json")}
        for key in keys:
            assert key not in found
            found[key] = (files[f"{key}.frames"], json.loads(files[f"{key}.json"]))
    return found


@pytest.fixture(scope="module")
def shards(video_folder, tmp_path_factory):
    """A folder of finished shards, and what `write_shards` returned. Not to be changed."""
    out = tmp_path_factory.mktemp("shards")
    return out, write(video_folder, out)


@pytest.fixture
def broken_data(video_folder, tmp_path):
    """The videos, and two that cannot be read."""
    for path in sorted(video_folder.rglob("*.mp4")):
        copy = tmp_path / "data" / path.relative_to(video_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "data" / "GoLeft" / "v_GoLeft_g01_c03.mp4").write_bytes(b"no video")
    (tmp_path / "data" / "GoRight" / "v_GoRight_g09_c01.mp4").write_bytes(b"")
    return tmp_path / "data"


def test_every_video_is_in_one_archive(video_folder, shards):
    out, index = shards
    found = samples(out)
    assert sorted(facts["path"] for _, facts in found.values()) == sorted(
        path.relative_to(video_folder).as_posix() for path in video_folder.rglob("*.mp4")
    )
    for split in ("train", "val", "test"):
        for number, item in enumerate(index.in_split(split)):
            entry, facts = found[f"{split}-{number:08d}"]
            assert facts == {"label": item.label, "path": item.path.as_posix(), "group": item.group, "split": split}
            frames = read_video(video_folder / item.path, FrameFormat((43, 32))).frames[0]
            difference = unpack_frames(entry, np.arange(len(frames))).astype(int) - frames
            assert np.abs(difference).mean() < 3  # JPEG
    assert [path.name for path in out.iterdir() if path.suffix != ".tar"] == [INDEX]


def test_index_matches_archives(shards):
    out, index = shards
    assert read_shards(str(out)) == index
    assert read_shards(out.as_uri()).items == index.items
    assert index.classes == ("GoLeft", "GoRight")
    assert index.frame_format == FrameFormat((43, 32))
    for split, archives in index.splits.items():
        assert [shard.name for shard in archives] == [f"{split}-{i:06d}.tar" for i in range(len(archives))]
        for shard in archives[:-1]:
            assert SMALL_BYTES <= shard.size_bytes < 2 * SMALL_BYTES
    assert len(index.splits["train"]) > 2
    assert {len({item.label for item in shard.items}) for shard in index.splits["train"][:-1]} == {2}  # shuffled
    assert "20 videos of 2 classes" in index.describe()


def test_webdataset_reads_archives(shards):
    urls = [{"url": path.as_uri()} for path in sorted(shards[0].glob("*.tar"))]
    own = samples(shards[0])
    read = {s["__key__"]: (s["frames"], json.loads(s["json"])) for s in webdataset.tarfile_samples(urls)}
    assert read == own


def test_seed_determines_bytes(video_folder, shards, tmp_path):
    def content(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    write(video_folder, tmp_path / "same", recipe=load_recipe("small", [*TINY, "data.num_workers=3"]))
    assert content(tmp_path / "same") == content(shards[0])
    other = write(video_folder, tmp_path / "other", recipe=load_recipe("small", [*TINY, "train.seed=1"]))
    assert other.in_split("train") != shards[1].in_split("train")


def test_unreadable_videos_are_listed(broken_data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["shard", str(broken_data), "--out", str(tmp_path / "out"), *(x for s in TINY for x in ("--set", s))])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "out")
    assert "unreadable: GoLeft/v_GoLeft_g01_c03.mp4: cannot be read as a video" in err.replace("\\", "/")
    assert "unreadable: GoRight/v_GoRight_g09_c01.mp4: the file is empty" in err.replace("\\", "/")
    index = read_shards(str(tmp_path / "out"))
    assert {item.path.name for item in index.unreadable} == {"v_GoLeft_g01_c03.mp4", "v_GoRight_g09_c01.mp4"}
    assert len(samples(tmp_path / "out")) == 20
    assert len(index.items) == 22
    for split in ("train", "val", "test"):  # in each split they come last
        unreadable = [item for item in index.unreadable if item.split == split]
        items = index.in_split(split)
        assert items[len(items) - len(unreadable) :] == unreadable


def test_shard_command_exit_codes(video_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["shard", str(video_folder), "--out", str(tmp_path / "out"), "--shard-size-mib", "1"])
    assert stopped.value.code == 0
    assert read_shards(str(tmp_path / "out")).frame_format == load_recipe("small").preprocessing().frame_format
    with pytest.raises(SystemExit) as stopped:
        main(["shard", str(video_folder), "--out", str(tmp_path / "no"), "--shard-size-mib", "0"])
    assert stopped.value.code == 2
    assert "--shard-size-mib of 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("after", [1, 9, 20])
def test_interrupted_writing_resumes(broken_data, tmp_path, monkeypatch, after):
    whole = write(broken_data, tmp_path / "whole")
    decoded = []
    real = writing.read_video  # of 22 videos it reads all

    def stopping(path, frame_format):
        if len(decoded) == after:
            raise KeyboardInterrupt
        decoded.append(path)
        return real(path, frame_format)

    monkeypatch.setattr(writing, "read_video", stopping)
    with pytest.raises(KeyboardInterrupt):
        write(broken_data, tmp_path / "parts")
    assert not (tmp_path / "parts" / INDEX).exists()
    assert not list((tmp_path / "parts").glob(".part-*"))
    monkeypatch.setattr(writing, "read_video", real)
    lines = []
    with logged(lines.append):
        index = write(broken_data, tmp_path / "parts")
    assert index.to_dict() == whole.to_dict()
    assert samples(tmp_path / "parts") == samples(tmp_path / "whole")
    assert any(line.startswith("resuming after") for line in lines) == (after > 1)


def test_killed_writing_resumes(video_folder, tmp_path):
    """A real process, killed in the middle of an archive."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "import test_write_shards as t; t.slow_write(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", script, str(video_folder), str(out), str(Path(__file__).parent)])
    deadline = time.monotonic() + 60
    while not list(out.glob("train-000001.tar")) and time.monotonic() < deadline:
        time.sleep(0.02)
    while not list(out.glob(".part-*.tar")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    process.wait()
    assert list(out.glob(".part-*.tar"))
    with pytest.raises(UserError, match="are not finished; run the msfnet shard command again"):
        read_shards(str(out))
    kept = (out / "train-000000.tar").stat().st_mtime_ns
    write(video_folder, out)
    assert (out / "train-000000.tar").stat().st_mtime_ns == kept
    assert len(samples(out)) == 20
    assert not list(out.glob(".part-*"))


def slow_write(data, out):
    real = writing.read_video

    def slow(path, frame_format):
        time.sleep(0.1)
        return real(path, frame_format)

    writing.read_video = slow
    write(data, out)


def test_finished_shards_are_not_written_again(video_folder, shards):
    out, index = shards
    dates = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix == ".tar"}
    assert write(video_folder, out) == index
    assert {path: path.stat().st_mtime_ns for path in dates} == dates
    with pytest.raises(
        UserError, match="holds shards of other videos, or of another split, size, rate or --shard-size-mib"
    ):
        write(video_folder, out, shard_bytes=SMALL_BYTES + 1)
    with pytest.raises(UserError, match="holds shards of other videos"):
        write(video_folder, out, recipe=load_recipe("small", [*TINY, "clip.resize=[44, 32]"]))


def test_prefetch_keeps_order_and_is_bounded():
    made = []

    def work(path):
        time.sleep(0.02 if path.name == "0" else 0)
        made.append(path)
        return path.name

    paths = [Path(str(i)) for i in range(30)]
    results = prefetch(work, paths, threads=3)
    assert next(results) == "0"
    time.sleep(0.05)
    assert len(made) <= 8
    assert [*results] == [str(i) for i in range(1, 30)]


# The index


@given(
    st.lists(st.tuples(st.text(min_size=1), st.sampled_from("ab"), st.none() | st.text(min_size=1)), max_size=5),
    st.sampled_from(["train", "val", "test"]),
)
def test_index_round_trip_through_json(videos, split):
    items = tuple(VideoItem(Path("v") / path.replace("\\", "-"), label, split, group) for path, label, group in videos)
    shards = {split: (Shard(f"{split}-000000.tar", 10240, items),)}
    index = Shards("here", "f", ("a", "b"), FrameFormat((43, 32)), shards, dict.fromkeys(items, "broken"))
    text = json.dumps(index.to_dict(), ensure_ascii=False)
    assert Shards.from_dict("here", json.loads(text)) == index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected shards of format 1 in here, found 2; write them again"),
        ({"splits": {"train": [{"name": "../train-000000.tar", "samples": 0, "bytes": 1, "videos": []}]}}, "is named"),
        ({"splits": {"train": [{"name": "test-000000.tar", "samples": 0, "bytes": 1, "videos": []}]}}, "is named"),
        ({"splits": {"train": [{"name": "train-000000.tar", "samples": 3, "bytes": 1, "videos": []}]}}, "3 samples, 0"),
        (
            {"splits": {"train": [{"name": "train-000000.tar", "samples": 1, "bytes": 1, "videos": [["v", 7, None]]}]}},
            "IndexError",
        ),
        ({"resize": [1]}, "not one that msfnet shard writes"),
        ({"unreadable": {"a": 1}}, "not one that msfnet shard writes"),
        ({"classes": None}, "not one that msfnet shard writes"),
    ],
)
def test_invalid_index_is_refused(change, message):
    values = Shards("here", "f", ("a",), FrameFormat((43, 32))).to_dict() | change
    with pytest.raises(UserError, match=message):
        Shards.from_dict("here", values)


@pytest.mark.parametrize("text", ["", "{", "[]", "\u00ff"])
def test_index_file_without_json_object_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"shards\.json"):
        read_shards(str(tmp_path))


def test_incomplete_shards_are_refused(shards, tmp_path):
    for path in shards[0].iterdir():
        shutil.copy(path, tmp_path)
    shard = tmp_path / "train-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(
        UserError, match=rf"train-000001.tar: expected {len(content)} bytes, found {len(content) - 512}"
    ):
        read_shards(str(tmp_path))
    shard.unlink()
    with pytest.raises(UserError, match="found no file; copy the shard again"):
        read_shards(str(tmp_path))


def test_is_shards(tmp_path):
    assert not is_shards(str(tmp_path))
    (tmp_path / UNFINISHED).write_text("{}")
    assert is_shards(str(tmp_path))
    assert is_shards("s3://bucket/set")
    assert is_shards("https://host/set")
    assert not is_shards(r"C:\videos")
    with pytest.raises(UserError, match="expected shards, found no shards"):
        read_shards(str(tmp_path / "nowhere"))


def test_tar_members_have_no_trace_of_the_machine(shards):
    with tarfile.open(shards[0] / "train-000000.tar") as tar:
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar} == {(0, 0, "", "", 0)}


def test_read_dataset_recognizes_shards(shards, tmp_path):
    out, index = shards
    assert read_dataset(out) == index
    assert read_dataset(out.as_uri()).items == index.items
    with pytest.raises(UserError, match="expected a folder of videos with --annotations, found the shards"):
        read_dataset(out, tmp_path)
    with pytest.raises(UserError, match="expected video files, found shards in"):
        read_video_files(out)


def test_split_can_be_renamed(shards):
    """Every video keeps its archive and its key in it, so that the renamed split can be read."""
    _, index = shards
    train_only = replace(index, splits={"train": index.splits["train"]})
    renamed = train_only.rename_split("train", "test")
    assert [item.path for item in renamed.in_split("test")] == [item.path for item in index.in_split("train")]
    assert renamed.in_split("train") == []
    assert {item.split for item in renamed.items} == {"test"}
    keys = [key for shard in renamed.splits["test"] for key in shard.sample_keys()]
    assert keys == [f"train-{number:08d}" for number in range(len(keys))]
