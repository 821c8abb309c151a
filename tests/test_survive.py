"""Runs that are broken off in every way there is, for real, and what they do when they go on."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from torch.utils.data import Dataset

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.dataset import EvalSampler, Sample, make_batches
from msfnet.data.loading import Batches, ReaderDiedError
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.training.engine import Engine
from msfnet.training.history import EXACT, owned
from msfnet.training.learner import Learner
from msfnet.training.loop import CHECKPOINT, Loop, load_checkpoint, save_checkpoint
from msfnet.training.signals import Interrupted, StopRequests, stop_requests
from msfnet.training.trainer import resume, train
from msfnet.training.videos import RunVideos
from msfnet.types import UserError

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
EVERY_STEP = "train.checkpoint_minutes=1e-9"


def quiet(line):
    pass


def tiny(*overrides):
    return load_recipe("small", [*TINY, "train.batch_size=3", "optim.base_batch_size=3", EVERY_STEP, *overrides])


def results(folder):
    """What of a run must not depend on how often it was broken off: all weights, and the numbers of every epoch."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return load_file(folder / "weights.safetensors"), [{key: row[key] for key in EXACT} for row in rows]


def assert_same(found, expected):
    assert found[1] == expected[1]
    assert all(torch.equal(found[0][key], value) for key, value in expected[0].items())


# Every step


@pytest.mark.parametrize(
    "settings", [(), ("model.name=c3d", "clip.crop_size=32"), ("train.micro_batches=1", "augment.mixup=0")]
)
def test_a_run_that_crashes_at_every_step_loses_nothing(video_folder, tmp_path, settings):
    """C3D has dropout, the others mixup or not: whatever is random must repeat."""
    listing = read_dataset(video_folder)
    items = tuple(replace(i, split="val" if i.group == "g01" else "train") for i in listing.items)
    recipe = tiny("train.epochs=2", "data.on_unreadable_train=skip", *settings)

    class CrashError(Exception):
        pass

    class Brittle(Learner):
        steps_left = 10**9

        def step(self, *args):
            self.steps_left -= 1
            if self.steps_left < 0:
                raise CrashError
            return super().step(*args)

    def go(name, steps, resuming):
        torch.manual_seed(0)
        model = create_model(recipe.model.name, 2, **recipe.model_kwargs())
        learner = Brittle(model, recipe, listing.classes, Engine(recipe.train), (8, 8))
        learner.steps_left = steps
        videos = RunVideos.of(replace(listing, items=items), None, recipe)
        loop = Loop(learner, *videos.batches(), tmp_path / name, rows[name].append, StopRequests())
        if resuming:
            loop.resume()
            torch.manual_seed(time.monotonic_ns())  # what was drawn before the crash is not what was drawn after it
        loop.run()
        return learner.model.state_dict()

    rows = {"whole": [], "broken": []}
    expected = go("whole", 10**9, False)
    crashes = 0
    while True:
        try:
            found = go("broken", 1, resuming=crashes > 0)
            break
        except CrashError:
            crashes += 1
    assert crashes == 2 * 6 - 1  # sixteen videos make six batches of three
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    for key in EXACT:
        assert [row[key] for row in rows["broken"]] == [row[key] for row in rows["whole"]]


# Signals


def start_training(video_folder, folder, *more, settings=()):
    overrides = [*TINY, "train.batch_size=2", "optim.base_batch_size=2", "train.epochs=6", EVERY_STEP, *settings]
    sets = [] if "--resume" in more else [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "msfnet", "train", str(video_folder), "--out", str(folder), *sets, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process, folder, after):
    """Until the run has saved a state in the midst of an epoch, later than `after` (epoch, step)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "last" / CHECKPOINT).exists():
            state = load_checkpoint(folder / "last")
            if (state["epoch"], state["step"]) > after and state["step"]:
                return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


@POSIX
@pytest.mark.slow
def test_kill_and_terminate_and_interrupt_then_going_on_is_the_same_run(video_folder, tmp_path):
    process = start_training(video_folder, tmp_path / "whole")
    assert process.communicate()[1]
    assert process.returncode == 0
    place, more = (0, 0), ()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = start_training(video_folder, tmp_path / "run", *more)
        wait_for_steps(process, tmp_path / "run", place)
        asked = time.time()
        process.send_signal(number)
        errors = process.communicate()[1]
        assert (tmp_path / "run" / "last" / CHECKPOINT).stat().st_mtime - asked < 10
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert f"stopped by {number.name}; go on with: msfnet train" in errors.splitlines()[-1]
            assert f"--out {tmp_path / 'run'} --resume" in errors.splitlines()[-1]
        assert not [p for p in (tmp_path / "run").iterdir() if "part" in p.name and number != signal.SIGKILL]
        state = load_checkpoint(tmp_path / "run" / "last")
        place, more = (state["epoch"], state["step"]), ("--resume",)
    process = start_training(video_folder, tmp_path / "run", *more)
    assert "going on after" in process.communicate()[1]
    assert process.returncode == 0
    assert_same(results(tmp_path / "run"), results(tmp_path / "whole"))


def test_requests_wait_where_they_must_and_stop_at_once_where_they_may():
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop_requests() as stop:
        with stop.held():
            signal.raise_signal(signal.SIGINT)
            assert stop.wanted == signal.SIGINT
            with pytest.raises(KeyboardInterrupt) as insisted:
                signal.raise_signal(signal.SIGINT)
            assert not isinstance(insisted.value, Interrupted)
            with pytest.raises(Interrupted), stop.held(False):
                raise AssertionError("a request that waits is granted before anything else is begun")
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


# Disks, numbers, readers


@POSIX
def test_a_full_disk_stops_the_run_in_one_line_and_leaves_what_was_saved(video_folder, tmp_path):
    import resource

    folder = tmp_path / "run"
    recipe = tiny("train.epochs=2")
    train(read_dataset(video_folder), recipe, folder)
    whole = results(folder)
    state = load_checkpoint(folder / "last")
    save_checkpoint(folder / "last", state | {"epoch": 1, "step": 0})  # as it was after the first epoch, but learned
    before = (folder / "last" / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"no room to write .*File too large.*: make some, and go on with --resume"):
            resume(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "last" / CHECKPOINT).read_bytes() == before
    assert not [path for path in folder.rglob("*") if "part" in path.name]
    resume(folder)
    assert results(folder)[1][0] == whole[1][0]


def test_a_loss_that_is_no_number_stops_with_the_names_of_the_batch(video_folder, tmp_path):
    recipe = tiny("optim.lr=1e30", "optim.warmup_epochs=0", "optim.name=adam", "train.epochs=1")
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) at batch \d of epoch 1; lower optim\.lr, or look"
    ) as told:
        train(read_dataset(video_folder), recipe, tmp_path / "run")
    assert str(told.value).count(".mp4") == 3
    state = load_checkpoint(tmp_path / "run" / "last")
    assert all(torch.isfinite(value).all() for value in state["model"].values()) or state["step"] > 1


class Deadly(Dataset):
    """Ten samples. Who reads the seventh dies, as often as there are files in `lives`."""

    def __init__(self, lives):
        self.lives = lives

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 7:
            for file in self.lives.iterdir():
                file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return Sample(index, 0, torch.full((1,), index))


@POSIX
@pytest.mark.parametrize("deaths", [1, pytest.param(9, marks=pytest.mark.slow)])  # five seconds each
def test_a_reader_that_dies_is_named_and_replaced_but_not_for_ever(tmp_path, deaths):
    for i in range(deaths):
        (tmp_path / str(i)).touch()
    lines = []
    batches = make_batches(Deadly(tmp_path), EvalSampler(10, 3), 2, lines.append)
    if deaths > 3:
        with pytest.raises(ReaderDiedError, match="4 processes that read videos died; often the machine ran out"):
            list(batches.epoch())
        return
    found = [batch["indices"] for batch in batches.epoch()]
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert len(lines) == deaths
    assert all("a process that reads videos died (" in line and "another goes on" in line for line in lines)
    assert [batch["indices"] for batch in batches.epoch(1, 2)] == found[2:]


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_a_reader_that_dies_while_it_hands_a_batch_over_is_replaced_too(error):
    made, lines, begun = [], [], []

    def make():
        made.append(len(made))
        return Loader([1, error]) if len(made) == 1 else Loader([1, 2, 3][begun[-1][1] :])

    batches = Batches(make, lambda epoch, done: begun.append((epoch, done)), 3, lines.append)
    assert list(batches.epoch(5)) == [1, 2, 3]
    assert begun == [(5, 0), (5, 1)]
    [line] = lines
    assert "another goes on from batch 2" in line


class Loader(list):
    """Batches, and errors where readers die."""

    num_workers = 1

    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


class Faulty(Dataset):
    """Data that raise what a lost connection would raise."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("wrong"), FileNotFoundError("wrong")])
@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_data_raise_is_no_death(error, workers):
    lines = []
    with pytest.raises(type(error), match="wrong"):
        list(make_batches(Faulty(error), EvalSampler(4, 2), workers, lines.append).epoch())
    assert lines == []


# One process to a folder

HOLDER = """
import sys, time
from pathlib import Path
from msfnet.training.history import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_folder_has_one_writer_and_is_free_when_that_is_killed(video_folder, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(
            UserError, match=r"another process is writing to .*run; wait for it, or choose another --out"
        ):
            train(read_dataset(video_folder), tiny("train.epochs=1"), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    finally:
        process.kill()
        process.wait()
    with owned(tmp_path / "run"):
        pass


def test_a_damaged_or_foreign_state_is_refused(tiny_run, tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / CHECKPOINT).write_bytes(b"no state")
    with pytest.raises(UserError, match=r"is damaged and cannot be gone on from"):
        load_checkpoint(tmp_path / "last")
    save_checkpoint(tmp_path / "last", {"format": 0})
    with pytest.raises(UserError, match=r"was written by another version of msfnet"):
        load_checkpoint(tmp_path / "last")
