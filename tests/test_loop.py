"""Training that is interrupted in every way, for real, and what a resumed run computes."""

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

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.dataset import VideoDataset
from msfnet.data.loading import WorkerDiedError
from msfnet.data.video.decode import read_clips
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.run_folder import CHECKPOINT, EXACT_COLUMNS, METRICS, WEIGHTS, Run
from msfnet.training.engine import Engine
from msfnet.training.learner import Learner
from msfnet.training.loop import FORMAT, DivergedError, Loop, load_checkpoint, save_checkpoint
from msfnet.training.signals import SignalHandler
from msfnet.training.trainer import resume, train
from msfnet.types import Interrupted, UserError

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
EVERY_STEP = "train.checkpoint_minutes=1e-9"


def tiny(*overrides):
    return load_recipe("small", [*TINY, "train.batch_size=3", "optim.base_batch_size=3", EVERY_STEP, *overrides])


def results(folder):
    """What must not depend on interruptions: all weights, and the numbers of every epoch."""
    rows = list(csv.DictReader((folder / METRICS).open()))
    return load_file(folder / WEIGHTS), [{key: row[key] for key in EXACT_COLUMNS} for row in rows]


def assert_same(found, expected):
    assert found[1] == expected[1]
    assert all(torch.equal(found[0][key], value) for key, value in expected[0].items())


class CrashError(Exception):
    pass


class CrashingLearner(Learner):
    """Crashes instead of taking a step, after some steps."""

    steps_left = 10**9

    def step(self, *args):
        self.steps_left -= 1
        if self.steps_left < 0:
            raise CrashError
        return super().step(*args)


@pytest.fixture
def data(video_folder):
    """Sixteen training videos and four validation videos."""
    found = read_dataset(video_folder)
    return found.with_items(replace(i, split="val" if i.group == "g01" else "train") for i in found.items)


def make_loop(data, recipe, checkpoint, on_epoch=lambda row: None, signals=None, kind=Learner):
    torch.manual_seed(0)
    model = create_model(recipe.model.name, 2, **recipe.model_kwargs())
    learner = kind(model, recipe, data.classes, Engine(recipe.train, "cpu"), (8, 8))
    loader = data.open(recipe.data, recipe.preprocessing())
    batch_size, sampling = recipe.train.batch_size, recipe.clip.train_sampling
    batches = loader.train_batches(sampling=sampling, batch_size=batch_size, seed=recipe.train.seed)
    val_batches = loader.eval_batches(data.in_split("val"), clips=1, batch_size=batch_size)
    return Loop(learner, batches, val_batches, checkpoint, on_epoch, signals or SignalHandler())


# Every step


@pytest.mark.parametrize("settings", [(), ("model.name=c3d",), ("augment.mixup=0", "train.ema_decay=0.9")])
def test_a_crash_at_every_step_loses_nothing(data, tmp_path, settings):
    """C3D has dropout, the others mixup or not: everything random must repeat."""
    recipe, rows = tiny("train.epochs=2", *settings), {"whole": [], "crashed": []}

    def run(name, steps, resumed):
        loop = make_loop(data, recipe, tmp_path / f"{name}.pt", rows[name].append, kind=CrashingLearner)
        loop.learner.steps_left = steps
        if resumed:
            loop.resume()
            torch.manual_seed(time.monotonic_ns())  # what was drawn before the crash is not what is drawn after it
        loop.run()
        return loop.learner.model.state_dict()

    expected = run("whole", 10**9, False)
    crashes = 0
    while True:
        try:
            found = run("crashed", 1, resumed=crashes > 0)
            break
        except CrashError:
            crashes += 1
    assert crashes == 2 * 6 - 1  # sixteen videos make six batches of three
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    for key in EXACT_COLUMNS:
        assert [row[key] for row in rows["crashed"]] == [row[key] for row in rows["whole"]]


def test_every_step_and_epoch_is_logged_once(data, tmp_path):
    """The loss of a step is read when the next one begins. The sixth batch has one clip, which makes no step."""
    logged = []
    loop = make_loop(data, tiny("train.epochs=2"), tmp_path / "c.pt")
    loop.run(lambda numbers, steps: logged.append((steps, sorted(numbers))))
    assert [steps for steps, keys in logged if "step/loss" in keys] == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert [steps for steps, keys in logged if "epoch/val_loss" in keys] == [6, 12]


@pytest.mark.parametrize("at", ["first wait", "later wait", "validation"])
def test_a_signal_while_waiting_for_data_saves_the_last_step(data, tmp_path, at):
    """With averaged weights: validation replaces those of the network, which a checkpoint must not."""
    recipe = tiny("train.epochs=1", "train.ema_decay=0.9", "train.checkpoint_minutes=60")
    whole = make_loop(data, recipe, tmp_path / "whole.pt")
    whole.run()
    signals = SignalHandler()
    loop = make_loop(data, recipe, tmp_path / "parts.pt", signals=signals)
    batches = loop.val_batches if at == "validation" else loop.train_batches
    epoch, wait = batches.epoch, {"first wait": 0, "later wait": 3, "validation": 1}[at]

    def interrupted_epoch(*args):
        for number, batch in enumerate(epoch(*args)):
            if number == wait:
                signals.handle(signal.SIGTERM, None)
            yield batch

    batches.epoch = interrupted_epoch
    with pytest.raises(Interrupted) as stop:
        loop.run()
    assert stop.value.signal_number == signal.SIGTERM
    resumed = make_loop(data, recipe, tmp_path / "parts.pt")
    resumed.resume()
    assert resumed.step == {"first wait": 0, "later wait": 3, "validation": 6}[at]
    resumed.run()
    expected, found = whole.learner.state(), resumed.learner.state()
    for part in ("model", "average"):
        a, b = (state[part] if part == "model" else state[part]["average"] for state in (expected, found))
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert found["train_sums"] == expected["train_sums"]


def test_a_signal_during_a_step_waits_for_its_end(data, tmp_path):
    signals = SignalHandler()

    class InterruptedLearner(Learner):
        def step(self, *args):
            signals.handle(signal.SIGINT, None)
            return super().step(*args)

    loop = make_loop(data, tiny(), tmp_path / "c.pt", signals=signals, kind=InterruptedLearner)
    with pytest.raises(Interrupted):
        loop.run()
    assert load_checkpoint(tmp_path / "c.pt")["step"] == 1
    assert loop.learner.train_sums.n_clips == 3


# Real processes


def start_training(video_folder, folder, *, resumed=False):
    overrides = [*TINY, "train.batch_size=2", "optim.base_batch_size=2", "train.epochs=6", EVERY_STEP]
    sets = [part for override in overrides for part in ("--set", override)]
    arguments = ["--resume", folder] if resumed else [video_folder, "--out", folder, *sets]
    command = [sys.executable, "-m", "msfnet", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process, folder, after):
    """Wait until the run has saved a state within an epoch, later than `after` (epoch, step)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / CHECKPOINT).exists():
            state = load_checkpoint(folder / CHECKPOINT)
            if (state["epoch"], state["step"]) > after and state["step"]:
                return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


@POSIX
@pytest.mark.slow
def test_killed_and_interrupted_runs_resume_bit_for_bit(video_folder, tmp_path):
    """By SIGKILL, SIGTERM and SIGINT, one after the other."""
    process = start_training(video_folder, tmp_path / "whole")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert out == f"{tmp_path / 'whole'}\n"
    place, resumed = (0, 0), False
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = start_training(video_folder, tmp_path / "run", resumed=resumed)
        wait_for_steps(process, tmp_path / "run", place)
        asked = time.time()
        process.send_signal(number)
        errors = process.communicate()[1]
        assert (tmp_path / "run" / CHECKPOINT).stat().st_mtime - asked < 10
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert errors.splitlines()[-1].endswith(f"resume with msfnet train --resume {tmp_path / 'run'}")
            assert not [path for path in (tmp_path / "run").iterdir() if "part" in path.name]
        state = load_checkpoint(tmp_path / "run" / CHECKPOINT)
        place, resumed = (state["epoch"], state["step"]), True
    process = start_training(video_folder, tmp_path / "run", resumed=True)
    assert "resuming from epoch" in process.communicate()[1]
    assert process.returncode == 0
    assert_same(results(tmp_path / "run"), results(tmp_path / "whole"))


class DeadlyVideos(VideoDataset):
    """Videos of which one kills the process that reads it."""

    def read_clips(self, item, sampler, frame_format):
        if item.path.name == "v_GoLeft_g03_c01.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        return read_clips(item.path, sampler, frame_format)


@POSIX
def test_the_death_of_a_worker_saves_the_state(data, tmp_path):
    """The run ends with one line, and resumes bit for bit."""
    recipe = tiny("train.epochs=1", "data.num_workers=1", "data.cache=off", "train.checkpoint_minutes=60")
    whole = make_loop(data, recipe, tmp_path / "whole.pt")
    whole.run()
    loop = make_loop(DeadlyVideos(data.items), recipe, tmp_path / "parts.pt")
    with pytest.raises(WorkerDiedError, match=r"a worker process that reads videos .*lower data\.num_workers"):
        loop.run()
    resumed = make_loop(data, recipe, tmp_path / "parts.pt")
    resumed.resume()
    resumed.run()
    a, b = whole.learner.state()["model"], resumed.learner.state()["model"]
    assert all(torch.equal(a[key], b[key]) for key in a)


# Disks and losses


@POSIX
def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(video_folder, tmp_path):
    import resource

    folder = tmp_path / "run"
    train(read_dataset(video_folder), tiny("train.epochs=2"), folder)
    whole = results(folder)
    state = load_checkpoint(folder / CHECKPOINT)
    save_checkpoint(folder / CHECKPOINT, state | {"epoch": 1, "step": 0})  # as after the first epoch, but trained
    before = (folder / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"expected space to write .*File too large.*resume with msfnet train --r"):
            resume(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert not [path for path in folder.rglob("*") if "part" in path.name]
    resume(folder)
    assert results(folder)[1][0] == whole[1][0]


def test_a_diverged_loss_names_the_videos_of_its_batch(video_folder, tmp_path):
    recipe = tiny("optim.lr=1e30", "optim.warmup_epochs=0", "optim.name=adam", "train.epochs=1")
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) at batch \d of epoch 1; lower optim\.lr, or ex"
    ) as error:
        train(read_dataset(video_folder), recipe, tmp_path / "run")
    assert str(error.value).count(".mp4") == 3


def test_no_state_is_saved_after_a_diverged_loss(data, tmp_path):
    """The loss is known when the next step begins, before a checkpoint that is due."""

    class DivergingLearner(Learner):
        def finish_step(self):
            loss = super().finish_step()
            return float("nan") if loop.step == 3 else loss

    loop = make_loop(data, tiny(), tmp_path / "c.pt", kind=DivergingLearner)
    with pytest.raises(DivergedError, match="the loss is nan at batch 3 of epoch 1") as error:
        loop.run()
    assert len(error.value.indices) == 3
    assert load_checkpoint(tmp_path / "c.pt")["step"] == 2


# Checkpoints


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"no state", "found a damaged file"),
        ({"format": FORMAT + 1}, f"found {FORMAT + 1}; update msfnet"),
        ({"format": 0}, "found another file"),
        ([1], "found another file"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(tmp_path, state, message):
    file = tmp_path / "checkpoint.pt"
    if isinstance(state, bytes):
        file.write_bytes(state)
    else:
        save_checkpoint(file, state)
    with pytest.raises(UserError, match=f"expected a checkpoint .*in {file}, .*{message}") as error:
        load_checkpoint(file)
    assert "\n" not in str(error.value)


def test_a_newer_run_is_refused_by_resume(tiny_run, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_run, tmp_path / "run")
    save_checkpoint(folder / CHECKPOINT, load_checkpoint(folder / CHECKPOINT) | {"format": FORMAT + 1})
    before = Run(folder).history
    with pytest.raises(UserError, match="update msfnet to resume"):
        resume(folder)
    assert Run(folder).history == before
