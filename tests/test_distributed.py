"""Several real processes: they join, exchange values, train and evaluate as one does, and stop and resume together."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import TINY, moving_square, write_lossless

from msfnet import distributed
from msfnet.data.annotations.readers import read_dataset
from msfnet.run_folder import CHECKPOINT, EXACT_COLUMNS, METRICS, SCORES, Run
from msfnet.training.loop import load_checkpoint

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


# Which processes there are


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("gpu7", "gpu7"),
        ("a1,a2", "a1"),
        ("node-[3]", "node-3"),
        ("n[1,3]-ib", "n1"),
        ("a b", "a"),
    ],
)
def test_the_first_machine_of_a_slurm_list(nodes, first):
    assert distributed.first_host(nodes) == first


SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": "123456"}
TORCH = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        (TORCH, TORCH),
        (TORCH | SLURM, TORCH),  # torchrun in a SLURM job
        (TORCH | {"WORLD_SIZE": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, None),  # a command in an interactive job is started once
        (
            SLURM | {"SLURM_NODELIST": "gpu[3-4]"},
            {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
            | {"MASTER_ADDR": "gpu3", "MASTER_PORT": "18456"},
        ),
    ],
)
def test_the_processes_that_torchrun_or_slurm_started(variables, found):
    assert distributed._launched(variables) == found


def test_a_process_alone_needs_no_group():
    distributed.join()
    assert (distributed.rank(), distributed.world_size(), distributed.local_world_size()) == (0, 1, 1)
    assert distributed.gather("value") == ["value"]
    assert distributed.gather_numbers(1, 2.5) == [[1, 2.5]]
    assert distributed.on_first(lambda: 3) == 3


def run_script(tmp_path, script, timeout=120):
    """Run a script in two processes; returns what they printed, sorted."""
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(script))
    process = subprocess.run(
        [sys.executable, *TORCHRUN, str(file)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return sorted(process.stdout.splitlines()), process


def test_processes_exchange_values_and_errors(tmp_path):
    """Every process gets the result of the first, or its error; only the first one logs less than errors."""
    lines, process = run_script(
        tmp_path,
        """
        import logging, torch
        from msfnet import distributed
        from msfnet.types import UserError

        distributed.join()
        distributed.join()
        rank = distributed.rank()
        print([
            distributed.gather_numbers(rank, float("nan") if rank else 2),
            distributed.gather("ab"[rank]),
            distributed.sum_tensor(torch.tensor([1.0, rank])).tolist(),
            distributed.on_first(lambda: f"from {rank}"),
            logging.getLogger("msfnet").isEnabledFor(logging.WARNING),
        ])
        def fail():
            raise UserError(f"error of {rank}")
        try:
            distributed.on_first(fail)
        except UserError as error:
            print("told", error)
        """,
    )
    same = "[[[0.0, 2.0], [1.0, nan]], ['a', 'b'], [2.0, 1.0], 'from 0', "
    assert lines == [f"{same}False]", f"{same}True]", "told error of 0", "told error of 0"], process.stderr


# Training and evaluation


def command(launcher, *arguments, **variables):
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "msfnet", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )


def finished(process, code=0):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return out, errors


def settings(*overrides):
    """Mixup is off: the clips of one batch would find their partners among fewer others."""
    plain = (
        "data.group_split=false",
        "augment.mixup=0",
        "train.batch_size=5",
        "optim.base_batch_size=5",
        "optim.warmup_epochs=0",
        "train.epochs=3",
    )
    return [part for override in (*TINY, *plain, *overrides) for part in ("--set", override)]


def curves(folder):
    rows = list(csv.DictReader((folder / METRICS).open()))
    return {key: [float(row[key]) for row in rows] for key in EXACT_COLUMNS}


@pytest.fixture(scope="module")
def odd_data(video_folder, tmp_path_factory):
    """A manifest of 15 training videos, one of them broken, 4 validation and 3 test videos: nothing divides by two."""
    root = tmp_path_factory.mktemp("odd")
    items = read_dataset(video_folder).items
    rows = [["path", "label", "split"]]
    rows += [
        [item.path, item.label, "val" if i % 10 in (1, 2) else "test" if i % 10 == 3 else "train"]
        for i, item in enumerate(items)
    ]
    (root / "broken.mp4").write_bytes(b"no video")
    write_lossless(root / "short.mkv", moving_square(2))
    rows += [[root / "broken.mp4", "GoLeft", "train"], [root / "short.mkv", "GoLeft", "test"]]
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "manifest.csv"


@pytest.mark.slow
def test_two_processes_compute_what_one_does(odd_data, tmp_path):
    """Also with batch norms and gradients of unequal shares, and a video that cannot be read."""
    exact = ("train.sync_batchnorm=true", "train.precision=64-true")  # norms of few values amplify 32-bit rounding
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        arguments = ("train", odd_data, "--out", tmp_path / name, *settings(*exact))
        _, errors = finished(command(launcher, *arguments), code=1)  # one video could not be read
        assert errors.count("skipped in training: ") == 1
        assert errors.count("epoch   1/3") == 1
    one, result = curves(tmp_path / "one"), Run(tmp_path / "one").result
    assert curves(tmp_path / "two") == {key: pytest.approx(values, rel=1e-6) for key, values in one.items()}
    found = Run(tmp_path / "two").result
    assert found.n_videos == result.n_videos == 3
    assert len(found.padded) == 1
    assert found.per_class == result.per_class
    out, _ = finished(command(TORCHRUN, "evaluate", tmp_path / "one", odd_data, "--json"))
    assert json.loads(out)["video"] == json.loads((tmp_path / "one" / SCORES).read_text())["video"]  # printed once


@pytest.mark.slow
def test_two_processes_score_each_video_of_uneven_shards_once(odd_data, tiny_run, tmp_path):
    sizes = ("--recipe", tiny_run / "recipe.toml", "--set", "data.group_split=false", "--set", "data.val_fraction=0")
    finished(command((), "shard", odd_data, "--out", tmp_path / "shards", *sizes), code=1)  # one cannot be read
    scores = [
        json.loads(finished(command(launcher, "evaluate", tiny_run, tmp_path / "shards", "--json"))[0])
        for launcher in ((), TORCHRUN)
    ]
    assert scores[0]["n_videos"] == len({video["path"] for video in scores[0]["videos"]})
    for key in ("n_videos", "video", "clip", "confusion"):
        assert scores[0][key] == scores[1][key]
    assert [v["path"] for v in scores[0]["videos"]] == [v["path"] for v in scores[1]["videos"]]


@pytest.mark.slow
def test_tasks_of_a_slurm_job_find_each_other(odd_data, tmp_path):
    """With the variables that srun gives to its tasks, without the rest of SLURM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = ("train", odd_data, "--out", tmp_path / "run", *settings("train.epochs=1", "train.devices=2"))
    tasks = [command((), *arguments, **job, SLURM_PROCID=n, SLURM_LOCALID=n) for n in ("0", "1")]
    (out, first), (no_out, second) = (finished(task, code) for task, code in zip(tasks, (1, 0), strict=True))
    assert out == f"{tmp_path / 'run'}\n"
    assert "epoch   1/1" in first
    assert no_out == second == ""  # the first task reports for both
    assert Run(tmp_path / "run").result.n_videos == 3


@POSIX
@pytest.mark.slow
def test_two_processes_stop_together_and_resume_bit_for_bit(odd_data, tmp_path):
    """Their running statistics differ until the end of an epoch, so that each must get its own back."""
    arguments = settings("train.devices=2", "train.epochs=4", "train.checkpoint_minutes=1e-9")
    finished(command(TORCHRUN, "train", odd_data, "--out", tmp_path / "whole", *arguments), code=1)
    process = command(TORCHRUN, "train", odd_data, "--out", tmp_path / "run", *arguments)
    file = tmp_path / "run" / CHECKPOINT
    while process.poll() is None and not (file.exists() and load_checkpoint(file)["step"]):
        time.sleep(0.01)
    asked = time.time()
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    _, errors = process.communicate(timeout=60)
    assert file.stat().st_mtime - asked < 10
    assert errors.count("resume with msfnet train --resume") == 1
    assert load_checkpoint(file)["epoch"] < 4
    finished(command(TORCHRUN, "train", "--resume", tmp_path / "run"), code=1)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(odd_data, tmp_path):
    """The broken video is in the batch of one process; each exits by itself, and none waits for the others."""
    arguments = settings("data.on_unreadable_train=fail")
    _, errors = finished(command(TORCHRUN, "train", odd_data, "--out", tmp_path / "run", *arguments), code=1)
    lines = [line for line in errors.splitlines() if line.startswith("msfnet: ")]
    assert lines
    assert all("broken.mp4: cannot be read as a video" in line for line in lines)


@POSIX
@pytest.mark.slow
def test_a_dead_worker_of_one_process_stops_and_saves_all(video_folder, tmp_path):
    """The other process stops between the same two steps, so that the state is complete."""
    lines, process = run_script(
        tmp_path,
        f"""
        import os, signal
        from dataclasses import replace
        from pathlib import Path
        from msfnet.data.annotations.readers import read_dataset
        from msfnet.data.dataset import VideoDataset
        from msfnet.data.video.decode import read_clips
        from msfnet.recipe import load_recipe
        from msfnet.training.trainer import train
        from msfnet.types import UserError

        folder = Path({str(tmp_path)!r})

        class DeadlyVideos(VideoDataset):
            def read_clips(self, item, sampler, frame_format):
                if item.path.name == "v_GoLeft_g03_c01.mp4":
                    os.kill(os.getpid(), signal.SIGKILL)
                return read_clips(item.path, sampler, frame_format)

        items = [replace(item, split="train") for item in read_dataset(Path({str(video_folder)!r})).items]
        recipe = load_recipe("small", [*{TINY!r}, "data.num_workers=1", "train.epochs=3"])
        try:
            train(DeadlyVideos(items), recipe, folder / "run")
        except UserError as error:
            print(error)
        """,
    )
    assert len(lines) == 2, process.stderr
    assert sum("for another process of the run died" in line for line in lines) == 1
    assert all("; resume with msfnet train --resume" in line for line in lines)
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert state["epoch"] == 0
    assert len(state["buffers"]) == 2
