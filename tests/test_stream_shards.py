"""Streaming shards: every kind of source, damage and broken connections, several processes, training and evaluation."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, logged

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset, read_video_files
from msfnet.data.sampling import eval_clips
from msfnet.data.shards import stream as stream_shards
from msfnet.data.shards.index import INDEX, read_shards
from msfnet.data.shards.plan import ShardPass
from msfnet.data.shards.stream import (
    EvalShards,
    ShardError,
    ShardLoader,
    TrainShards,
    make_shard_batches,
    read_entries,
)
from msfnet.data.shards.write import write_shards
from msfnet.data.video.decode import read_clips
from msfnet.models.checkpoint import load_weights
from msfnet.recipe import load_recipe
from msfnet.run_folder import Run
from msfnet.training.trainer import resume, train
from msfnet.types import FrameFormat, UserError

RECIPE = load_recipe("small", TINY)
PREPROCESSING = RECIPE.preprocessing()


@pytest.fixture(scope="module")
def folder(video_folder, tmp_path_factory):
    """Shards of the twenty videos, and of a test video that cannot be read. Not to be changed."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("shards")
    for part in ("GoLeft", "GoRight"):
        shutil.copytree(video_folder / part, data / "train" / part)
    (data / "test").mkdir()
    for part in ("GoLeft", "GoRight"):
        (data / "test" / part).mkdir()
        for path in (data / "train" / part).glob("*_g05_*"):
            path.rename(data / "test" / part / path.name)
    (data / "test" / "GoLeft" / "v_GoLeft_g09_c01.mp4").write_bytes(b"no video")
    recipe = load_recipe("small", [*TINY, "data.val_fraction=0"])
    write_shards(read_video_files(data), recipe, data, out, shard_bytes=40_000)
    return out


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(stream_shards, "RETRY_SECONDS", (0, 0))


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `breaks` has, by name, after how many bytes each further response is cut off."""

    def __init__(self, folder):
        self.breaks, self.asked = {}, Counter()
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, outputfile):
        name = Path(self.path).name
        self.server.asked[name] += 1
        breaks = self.server.breaks.get(name)
        outputfile.write(source.read(breaks.pop(0) if breaks else -1))

    def log_message(self, *args):
        pass


@pytest.fixture
def server(folder):
    with _Server(folder) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def training(source, **settings):
    settings = {"batch": 4, "seed": 0, "window": 6, "sampling": "random_interval"} | settings
    return TrainShards(read_shards(str(source)), PREPROCESSING, **settings)


def scored(source, preprocessing=PREPROCESSING, split="test", **settings):
    shards = read_shards(str(source))
    return EvalShards(shards, preprocessing, shards.in_split(split), **{"batch": 3, "clips": 2} | settings)


def content(samples):
    return [(s.index, s.label, s.error, None if s.frames is None else s.frames.numpy().tobytes()) for s in samples]


# Samples


def test_training_samples_are_clips_of_their_videos(folder, video_folder):
    videos, items = training(folder), read_shards(str(folder)).in_split("train")
    seen = list(videos)
    assert len(videos) == 16
    assert sorted(s.index for s in seen) == list(range(16))
    for sample in seen:
        item = items[sample.index]
        assert sample.label == ["GoLeft", "GoRight"].index(item.label)
        assert sample.frames.shape == (1, 4, 32, 43, 3)
        assert not sample.padded
        sampler = functools.partial(videos._indices, 0, sample.index)
        clip = read_clips(video_folder / item.label / item.path.name, sampler, FrameFormat((43, 32)))
        assert np.abs(sample.frames.numpy().astype(int) - clip.frames).mean() < 3  # JPEG


def test_clips_and_order_depend_on_seed_and_epoch(folder):
    def epoch(number, **settings):
        videos = training(folder, **settings)
        videos.set_epoch(number)
        return content(videos)

    assert epoch(0) == epoch(0) != epoch(1)
    assert epoch(1) == epoch(1)
    assert epoch(0) != epoch(0, seed=1)
    whole, other_order = epoch(0), epoch(0, window=1)
    assert sorted(whole) == sorted(other_order)  # a clip depends on its video, not on the order
    assert whole != other_order


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_batches_of_two_epochs(folder, workers):
    loader = make_shard_batches(training(folder, batch=3), workers)
    epochs = []
    for epoch in range(2):
        batches = list(loader.epoch(epoch))
        assert len(batches) == len(loader) == 6
        assert [len(batch.indices) for batch in batches] == [3, 3, 3, 3, 3, 1]
        assert batches[0].clips.shape == (3, 1, 4, 32, 43, 3)
        epochs.append([batch.indices for batch in batches])
        assert sorted(chain(*epochs[-1])) == list(range(16))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_epoch_reads_no_earlier_shard(server, workers):
    def batches(done):
        videos = training(server.url, batch=2, window=3)
        return [(b.indices, b.clips) for b in make_shard_batches(videos, workers).epoch(1, done)]

    whole = batches(0)
    everything = set(server.asked)
    for done in (1, 3, 7):
        server.asked.clear()
        rest = batches(done)
        assert [indices for indices, _ in rest] == [indices for indices, _ in whole[done:]]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(rest, whole[done:], strict=True))
    assert len(everything) >= 5
    assert len(server.asked) <= 1 + 1 + max(1, workers)  # the index, and at the end a shard or two for each worker


def test_evaluation_samples_are_every_video_once(folder, video_folder):
    videos, items = scored(folder), read_shards(str(folder)).in_split("test")
    samples = list(videos)
    assert [s.index for s in samples] == list(range(5)) == list(range(len(videos)))
    assert [s.error is None for s in samples] == [True] * 4 + [False]
    assert samples[-1].error.startswith("cannot be read as a video")
    assert samples[-1].label == 0
    assert items[-1].path.name == "v_GoLeft_g09_c01.mp4"
    for sample, item in zip(samples[:4], items, strict=False):
        sampler = functools.partial(eval_clips, PREPROCESSING, 2)
        clip = read_clips(video_folder / item.label / item.path.name, sampler, FrameFormat((43, 32)))
        assert np.abs(sample.frames.numpy().astype(int) - clip.frames).mean() < 3
    assert [s.label for s in samples] == [("GoLeft", "GoRight").index(item.label) for item in items]


def test_any_videos_can_be_evaluated(folder):
    """They are read in the order of the shards, over all splits, and numbered as in the list that is passed."""
    shards = read_shards(str(folder))
    items = [*shards.in_split("test")[::-2], *shards.in_split("train")[5::-2]]
    samples = list(EvalShards(shards, PREPROCESSING, items, clips=1, batch=2))
    assert sorted(sample.index for sample in samples) == list(range(len(items)))
    every = {s.index: s for s in EvalShards(shards, PREPROCESSING, shards.items, clips=1, batch=2)}
    for sample in samples:
        expected = every[shards.items.index(items[sample.index])]
        assert (sample.label, sample.error) == (expected.label, expected.error)
        assert sample.error or torch.equal(sample.frames, expected.frames)
    assert [s.error is None for s in samples].count(False) == 1
    assert samples[-1].error


def test_renamed_split_is_read(folder):
    shards = read_shards(str(folder))
    train_only = replace(shards, splits={"train": shards.splits["train"]}, unreadable={}).rename_split("train", "test")
    found = list(EvalShards(train_only, PREPROCESSING, train_only.in_split("test"), clips=2, batch=3))
    assert content(found) == content(scored(folder, split="train"))


def test_short_videos_repeat_their_last_frame(folder):
    long = replace(PREPROCESSING, num_frames=40)
    samples = list(scored(folder, long, batch=2, clips=1))
    assert all(s.padded and s.frames.shape == (1, 40, 32, 43, 3) for s in samples[:4])
    assert torch.equal(samples[0].frames[0, -1], samples[0].frames[0, -2])


def test_other_frame_size_is_refused(folder):
    other = load_recipe("small").preprocessing()
    with pytest.raises(UserError, match=r"expected shards of \d+x\d+ px, found 43x32 px; write them with"):
        read_shards(str(folder)).open(RECIPE.data, other)


def test_other_frame_rate_is_refused(video_folder, tmp_path):
    """Videos of 10 fps are written at 5 fps, and read as they are from files."""

    def write(recipe):
        return write_shards(read_video_files(video_folder), recipe, video_folder, tmp_path, shard_bytes=10**6)

    recipe = load_recipe("small", [*TINY, "clip.fps=5"])
    index, own = write(recipe), recipe.preprocessing()
    assert read_shards(str(tmp_path)) == index
    sampler, items = functools.partial(eval_clips, own, 2), index.in_split("test")
    for sample in EvalShards(index, own, items, batch=2, clips=2):
        clip = read_clips(video_folder / items[sample.index].path, sampler, own.frame_format)
        assert 6 <= clip.video_frames <= 11  # of 12 to 21
        assert np.abs(sample.frames.numpy().astype(int) - clip.frames).mean() < 3  # JPEG
    with pytest.raises(UserError, match="expected shards of 43x32 px, found 43x32 px at 5 fps; write them with"):
        train(index, RECIPE, tmp_path / "run")
    with pytest.raises(UserError, match="holds shards of other videos, or of another split, size, rate or"):
        write(RECIPE)


# Sources


def test_every_source_gives_the_same(folder, server, monkeypatch):
    """A path, a file: URL, a web server and an S3 command (here a program that prints the file)."""
    here = [content(training(folder)), content(scored(folder))]
    show = (
        "import pathlib, shutil, sys; shutil.copyfileobj(open(sys.argv[1] + sys.argv[2][9:], 'rb'), sys.stdout.buffer)"
    )
    command = f'"{sys.executable}" -c "{show}" "{folder.as_posix()}" {{url}}'
    monkeypatch.setenv("MSFNET_S3_COMMAND", command)
    for source in (folder.as_uri(), server.url, server.url + "/?key=1", "s3://data"):
        assert [content(training(source)), content(scored(source))] == here
    assert command in read_shards("s3://data").describe()


def test_invalid_s3_command_is_refused(monkeypatch):
    monkeypatch.setenv("MSFNET_S3_COMMAND", "exit 3; {url}")
    with pytest.raises(UserError, match=r"cannot read shards\.json of s3://bucket/it's: "):
        read_shards("s3://bucket/it's")
    monkeypatch.setenv("MSFNET_S3_COMMAND", "aws s3 cp")
    with pytest.raises(UserError, match=r"expected {url} in MSFNET_S3_COMMAND"):
        read_shards("s3://bucket/set")


def test_unreachable_source_is_refused(server):
    with pytest.raises(UserError, match=r"cannot read shards\.json of http.*404"):
        read_shards(server.url + "/nowhere")
    with pytest.raises(UserError, match=r"cannot read shards\.json of http://127.0.0.1:9: .*[Rr]efused"):
        read_shards("http://127.0.0.1:9")
    with pytest.raises(UserError, match="expected a folder or a URL with http, https, s3 or file, found ftp://x/y"):
        read_shards("ftp://x/y")


def test_failing_s3_command_is_one_line(monkeypatch):
    monkeypatch.setenv("MSFNET_S3_COMMAND", f'"{sys.executable}" -c "raise SystemExit(7)" {{url}}')
    with pytest.raises(
        UserError, match=r"cannot read shards\.json of s3://a/b: the command .* ended with exit code 7;"
    ):
        read_shards("s3://a/b")


def test_missing_webdataset_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match=r"pip install 'msfnet\[shards\]'"):
        read_shards(str(folder)).open(RECIPE.data, PREPROCESSING)


def test_import_makes_no_connection():
    script = (
        "import socket, sys\n"
        "def refuse(*args): raise AssertionError(args)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import msfnet.data.shards.stream; assert 'webdataset' not in sys.modules\n"
        "import webdataset; assert not {'torchvision', 'boto3', 'cv2', 'PIL'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


# Broken connections


def shard_and_names(source, number=0):
    shard = read_shards(str(source)).splits["train"][number]
    return shard, [f"train-{i:08d}.frames" for i in range(len(shard.items))]


def test_interrupted_transfer_continues_where_it_broke(server, folder):
    shard, names = shard_and_names(folder)
    whole = list(read_entries(str(folder), shard, names))
    third = third_sample_bytes(folder / shard.name)
    server.breaks[shard.name] = [100, third, third + 700]
    assert list(read_entries(server.url, shard, names)) == whole
    assert server.asked[shard.name] == 4
    server.breaks[shard.name] = [0, third]
    assert content(training(server.url)) == content(training(folder))


def third_sample_bytes(path):
    """Where the third sample begins: an archive that ends there looks like a complete one."""
    with tarfile.open(path) as tar:
        return tar.getmembers()[4].offset


@pytest.mark.parametrize("workers", [0, 2])
def test_transfer_that_keeps_breaking_is_one_line(server, workers):
    name = "train-000001.tar"
    server.breaks[name] = [1000] * 20
    with pytest.raises(ShardError) as raised:
        list(make_shard_batches(training(server.url), workers).epoch())
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{server.url}/{name} cannot be read from train-")
    assert server.asked[name] == 3


def test_missing_shard_is_one_line(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    videos = training(copy)
    (copy / "train-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"000000.tar cannot be read from .* on, after 3 attempts: .*No such file"):
        list(make_shard_batches(videos, 0).epoch())


# Damage


def damaged(folder, tmp_path, name, offset_of):
    """A copy of the shards with one byte of an archive changed, at the offset that `offset_of` returns."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    with tarfile.open(copy / name) as tar:
        offset = offset_of(tar.getmembers())
    content = bytearray((copy / name).read_bytes())
    content[offset] ^= 255
    (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize("where", [3, 5000])
def test_damaged_sample_is_an_error_with_its_name(folder, tmp_path, where):
    """The byte is in the header of the entry, and in a frame, all of which are wanted."""
    copy = damaged(folder, tmp_path, "test-000000.tar", lambda members: members[2].offset_data + where)
    long = replace(PREPROCESSING, num_frames=40)
    shards = read_shards(str(copy))
    samples = list(scored(copy, long, batch=2, clips=1))
    assert [s.index for s in samples if s.error] == [1, 4]
    assert samples[1].frames is None
    assert samples[1].label == shards.classes.index(shards.in_split("test")[1].label)
    assert "test-000000.tar, sample test-00000001" in samples[1].error


def test_samples_after_a_damaged_tar_header_are_errors(folder, tmp_path):
    shard, _ = shard_and_names(folder)
    copy = damaged(folder, tmp_path, shard.name, lambda members: members[2].offset + 150)
    samples = {s.index: s for s in training(copy)}
    assert sorted(samples) == list(range(16))
    bad = [number for number, sample in samples.items() if sample.error]
    assert sorted(bad) == list(range(1, len(shard.items)))
    assert "the archive is damaged: the sample is not in it" in samples[1].error


def test_any_changed_byte_of_an_archive_is_detected(folder, tmp_path):
    """Wherever a byte is changed, each sample is as it was, or an error."""
    shard, names = shard_and_names(folder)
    videos = scored(folder, replace(PREPROCESSING, num_frames=40), "train", batch=2, clips=1)
    whole = [s[3] for s in content(videos)][: len(names)]
    original = (folder / shard.name).read_bytes()
    copy = shutil.copytree(folder, tmp_path / "copy")
    videos.source = str(copy)
    rng = np.random.default_rng(0)
    for offset in [*rng.integers(0, len(original), 40), *rng.integers(0, 512, 10)]:
        changed = bytearray(original)
        changed[offset] ^= 1 << int(rng.integers(8))
        (copy / shard.name).write_bytes(changed)
        every = ShardPass(videos.archives.index(shard), tuple(range(len(names))), tuple(range(len(names))))
        for sample, frames in zip(videos._read(every, videos._indices), whole, strict=True):
            assert sample.error or sample.frames.numpy().tobytes() == frames


# Several processes


def test_two_processes_take_equal_steps(folder):
    """Two real processes in a gloo group read shards of different sizes: everything, in equally many batches."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_stream_shards as t; t.one_rank(sys.argv[2], int(sys.argv[3]), sys.argv[4])"
    )
    meeting = (folder.parent / "meeting").as_uri()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(Path(__file__).parent), str(folder), str(rank), meeting],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    lines = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    for epoch in range(2):
        parts = [[list(map(int, batch.split(","))) for batch in out[epoch].split()] for out in lines]
        assert [len(part) for part in parts] == [3, 3]
        assert sorted(chain(*parts[0], *parts[1])) == list(range(16))
    assert lines[0][2] == lines[1][2] == "16"  # what both counted together
    scored = [list(map(int, out[3].split())) for out in lines]
    assert sorted(scored[0] + scored[1]) == list(range(5))


def one_rank(folder, rank, meeting):
    """What each of the two processes does: it prints a line for each epoch, a sum over ranks, and what it evaluates."""
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    shards = read_shards(folder)
    loader = ShardLoader(shards, PREPROCESSING, num_workers=2)
    train_batches = loader.train_batches(sampling="random_interval", batch_size=6, seed=0)
    for epoch in range(2):
        seen = torch.zeros(16)
        batches = []
        for batch in train_batches.epoch(epoch):
            batches.append(",".join(map(str, batch.indices)))
            seen[batch.indices] += 1
            torch.distributed.barrier()  # with unequal steps this would wait forever
        print(" ".join(batches))
    torch.distributed.all_reduce(seen)
    print(int((seen == 1).sum()))
    eval_batches = loader.eval_batches(shards.in_split("test"), clips=1, batch_size=4)
    print(*(index for batch in eval_batches.epoch() for index in (*batch.indices, *batch.unreadable)))


# Training and evaluation


def test_training_from_shards_resumes(folder, tmp_path):
    """A run that is interrupted after an epoch and resumed ends where an uninterrupted one does."""
    from msfnet.models.registry import create_model
    from msfnet.training.engine import Engine
    from msfnet.training.learner import Learner
    from msfnet.training.loop import Loop
    from msfnet.training.signals import SignalHandler

    def run(name, epochs, resume=False):
        recipe = load_recipe("small", [*TINY, f"train.epochs={epochs}", "optim.schedule=constant"])
        torch.manual_seed(0)
        classes = read_shards(str(folder)).classes
        learner = Learner(create_model("r3d_18", 2, width_mult=0.125), recipe, classes, Engine(recipe.train), (8, 8))
        videos = make_shard_batches(training(folder, batch=recipe.train.batch_size), 0)
        val_videos = make_shard_batches(scored(folder, clips=1, batch=4), 0)
        rows = []
        loop = Loop(learner, videos, val_videos, tmp_path / f"{name}.pt", rows.append, SignalHandler())
        if resume:
            loop.resume()
        loop.run()
        assert not learner.problems.unreadable
        return rows, learner.model.state_dict()

    whole, expected = run("whole", 2)
    assert [row["epoch"] for row in whole] == [1, 2]
    assert all(0 < row["train_loss"] < 10 and 0 <= row["val_top1"] < 0.81 for row in whole)  # one of five is broken
    first, _ = run("parts", 1)
    second, found = run("parts", 2, resume=True)
    assert [row["train_loss"] for row in first + second] == [row["train_loss"] for row in whole]
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_scores_from_files_and_from_shards_agree(folder, video_folder, tiny_run):
    from msfnet.inference.network import score_views

    weights = load_weights(tiny_run)
    items = read_shards(str(folder)).in_split("test")
    for batch in make_shard_batches(scored(folder), 0).epoch():
        for index, clips in zip(batch.indices, batch.clips, strict=True):
            item = items[index]
            sampler = functools.partial(eval_clips, PREPROCESSING, 2)
            path = video_folder / item.label / item.path.name
            direct = torch.from_numpy(read_clips(path, sampler, FrameFormat((43, 32))).frames)
            found, expected = (score_views(weights.model, c[None], PREPROCESSING, 1) for c in (clips, direct))
            assert torch.allclose(found, expected, atol=0.05)


def test_reading_a_dataset_fetches_the_index_alone(server, folder):
    index = read_shards(server.url)
    assert replace(index, source=str(folder)) == read_shards(str(folder))
    assert server.asked == {INDEX: 1}


# The commands


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_train_and_evaluate_commands_take_shards(folder, server, tmp_path, capsys):
    settings = [word for item in TINY for word in ("--set", item)]
    code, out, err = run(capsys, "train", folder, "--out", tmp_path / "run", "--set", "train.epochs=1", *settings)
    assert (code, out.strip()) == (1, str(tmp_path / "run"))  # a test video is broken
    assert "20 videos of 2 classes from" in err
    assert "training msf_r3d_18_fsam on 16 videos" in err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["n_videos"] == 5
    assert [reason.split(":")[0] for reason in scores["unreadable"].values()] == ["cannot be read as a video"]
    assert scores["per_class"]["GoLeft"]["n"] == 3
    for source in (folder, server.url):
        code, out, err = run(capsys, "evaluate", tmp_path / "run", source, "--json")
        assert code == 1
        again = json.loads(out)
        assert (again["n_videos"], again["protocol"]) == (5, "test split")
        for video, before in zip(again["videos"], scores["videos"], strict=True):
            assert video["score"] == pytest.approx(before["score"], abs=1e-4)  # here norms are folded, there not
            video["score"] = before["score"]
        assert again == scores
    code, _, err = run(capsys, "train", folder, "--out", tmp_path / "other")
    assert code == 2
    assert "px, found 43x32 px; write them with the network's own recipe" in err
    assert not (tmp_path / "other").exists()


def test_class_balance_is_refused(folder, tmp_path):
    recipe = load_recipe("small", [*TINY, "data.class_balance=0.5"])
    with pytest.raises(
        UserError, match=r"expected data.class_balance of 0 with shards, found 0\.5: .*train.loss=class_weighted"
    ):
        train(read_shards(str(folder)), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unpacked_training_videos_are_named_by_the_run(folder, tmp_path):
    """The shards are those of a dataset whose unreadable video is one to train on."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / INDEX).write_text(
        (copy / INDEX).read_text().replace('"split": "test", "reason"', '"split": "train", "reason"')
    )
    lines = []
    with logged(lines.append):
        run = train(read_shards(str(copy)), load_recipe("small", [*TINY, "train.epochs=1"]), tmp_path / "run")
    assert [path.replace("\\", "/") for path in run.unreadable] == ["test/GoLeft/v_GoLeft_g09_c01.mp4"]
    assert any(line.startswith("skipped in training: ") for line in lines)
    assert run.result.n_videos == 4


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_resumed_runs_with_workers_end_the_same(folder, video_folder, tmp_path, kind):
    data = read_shards(str(folder)) if kind == "shards" else read_dataset(video_folder)
    recipe = load_recipe("small", [*TINY, "data.num_workers=2"])

    class StopError(Exception):
        pass

    def stop(line):
        if line.startswith("epoch   2/2"):
            raise StopError

    train(data, recipe, tmp_path / "whole")
    with pytest.raises(StopError), logged(stop):
        train(data, recipe, tmp_path / "parts")
    resume(tmp_path / "parts")
    whole, parts = (load_weights(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    losses = [[row["train_loss"] for row in Run(tmp_path / name).history] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_run_does_not_resume_with_other_shards(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    train(read_shards(str(copy)), load_recipe("small", [*TINY, "train.epochs=1"]), tmp_path / "run")
    values = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps(values | {"fingerprint": "other"}))
    with pytest.raises(UserError, match=r"expected the videos that the run in .* started with, found others"):
        resume(tmp_path / "run")
