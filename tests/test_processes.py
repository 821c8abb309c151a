"""Runs of several real processes: they learn and score what one does, and stop and go on together."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from conftest import TINY, moving_square, write_lossless
from torch import distributed as dist
from torch import nn

from msfnet import distributed
from msfnet.data.annotations.readers import read_dataset
from msfnet.models import c3d, resnet3d
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.training.batchnorm import SyncedBatchNorm3d, to_synced_batchnorm
from msfnet.training.checkpointing import checkpoint_blocks
from msfnet.training.engine import Engine
from msfnet.training.history import EXACT
from msfnet.training.learner import Learner
from msfnet.training.loop import CHECKPOINT, load_checkpoint

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command(launcher, *arguments, **variables):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "msfnet", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finished(process, code=0):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return out, errors


def settings(*overrides):
    """Clips of one batch are not mixed: they would find their partners among fewer others."""
    plain = (
        "data.group_split=false",
        "augment.mixup=0",
        "train.batch_size=5",
        "optim.base_batch_size=5",
        "optim.warmup_epochs=0",
        "train.epochs=3",
    )
    return [part for override in (*TINY, *plain, *overrides) for part in ("--set", override)]


def curve(folder):
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return {key: [float(row[key]) for row in rows] for key in EXACT}


@pytest.fixture(scope="module")
def odd_folder(video_folder, tmp_path_factory):
    """A manifest of videos, one of them broken: 15 to train on, 4 to choose by, 3 to score. Nothing divides."""
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
def test_two_processes_learn_and_score_what_one_does(odd_folder, tmp_path):
    """Also with norms and gradients of uneven shares, and a video that cannot be read."""
    exact = ("train.sync_batchnorm=true", "train.precision=64-true")  # norms of few values blow up what 32 bits lose
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        arguments = ("train", odd_folder, "--out", tmp_path / name, *settings(*exact))
        _, errors = finished(command(launcher, *arguments), code=1)  # one video could not be read
        assert errors.count("skipped in training: ") == 1
        assert errors.count("epoch   1/3") == 1
    one, scores = curve(tmp_path / "one"), json.loads((tmp_path / "one" / "scores.json").read_text())
    assert curve(tmp_path / "two") == {key: pytest.approx(values, rel=1e-6) for key, values in one.items()}
    found = json.loads((tmp_path / "two" / "scores.json").read_text())
    assert found["n_videos"] == scores["n_videos"] == 3
    assert found["n_padded"] == 1
    assert found["per_class"] == scores["per_class"]
    out, _ = finished(command(TORCHRUN, "evaluate", tmp_path / "one", odd_folder, "--json"))
    assert json.loads(out)["video"] == scores["video"]  # said once


@pytest.mark.slow
def test_two_processes_score_each_video_of_uneven_shards_once(odd_folder, tiny_run, tmp_path):
    sizes = ("--recipe", tiny_run / "recipe.toml", "--set", "data.group_split=false", "--set", "data.val_fraction=0")
    finished(command((), "shard", odd_folder, "--out", tmp_path / "shards", *sizes), code=1)  # one cannot be read
    scores = [
        json.loads(finished(command(launcher, "evaluate", tiny_run, tmp_path / "shards", "--json"))[0])
        for launcher in ((), TORCHRUN)
    ]
    assert scores[0]["n_videos"] == len({video["path"] for video in scores[0]["videos"]}) == 3
    for key in ("n_videos", "video", "clip", "confusion"):
        assert scores[0][key] == scores[1][key]
    assert [v["path"] for v in scores[0]["videos"]] == [v["path"] for v in scores[1]["videos"]]


@pytest.mark.slow
def test_tasks_of_a_slurm_job_find_each_other(odd_folder, tmp_path):
    """The environment that srun gives to its tasks, without the rest of SLURM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = ("train", odd_folder, "--out", tmp_path / "run", *settings("train.epochs=1"))
    tasks = [command((), *arguments, **job, SLURM_PROCID=n, SLURM_LOCALID=n) for n in ("0", "1")]
    (_, first), (out, second) = (finished(task, code) for task, code in zip(tasks, (1, 0), strict=True))
    assert "epoch   1/1" in first
    assert out == second == ""  # one task speaks for both
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["n_videos"] == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_two_processes_stop_together_and_go_on_bit_for_bit(odd_folder, tmp_path):
    """Their norms are their own until the end of an epoch, so each must get its own back."""
    arguments = settings("train.devices=2", "train.epochs=4", "train.checkpoint_minutes=1e-9")
    finished(command((), "train", odd_folder, "--out", tmp_path / "whole", *arguments), code=1)
    process = command((), "train", odd_folder, "--out", tmp_path / "run", *arguments)
    file = tmp_path / "run" / "last" / CHECKPOINT
    while process.poll() is None and not (file.exists() and load_checkpoint(file.parent)["step"]):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    asked = time.time()
    _, errors = finished(process, code=128 + signal.SIGTERM)
    assert file.stat().st_mtime - asked < 10
    assert "stopped by SIGTERM; go on with: " in errors
    assert load_checkpoint(file.parent)["epoch"] < 4
    finished(command((), "train", odd_folder, "--out", tmp_path / "run", "--resume"), code=1)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_in_one_line(odd_folder, tmp_path):
    arguments = settings("train.devices=2", "data.on_unreadable_train=fail")
    _, errors = finished(command((), "train", odd_folder, "--out", tmp_path / "run", *arguments), code=2)
    assert "broken.mp4: cannot be read as a video" in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("msfnet: ")
    assert "Traceback" not in errors


# Norms


def one_rank(rank, meeting, out):
    """One of two processes: its share of a batch through norms that go by all of it, forward and backward."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    x, norm = batch(), make_norm(SyncedBatchNorm3d)
    assert distributed.count() == 2
    assert distributed.gather(rank) == [0, 1]
    assert distributed.add_numbers(rank, 1) == [1, 2]
    share = x[rank * 2 :: 1][:2] if rank == 0 else x[2:]  # two clips and three
    own = share.clone().requires_grad_()
    y = norm(own)
    (y**3).sum().backward()
    for parameter in norm.parameters():
        dist.all_reduce(parameter.grad)
    torch.save((y.detach(), own.grad, [p.grad for p in norm.parameters()], norm.state_dict()), f"{out}{rank}")
    dist.destroy_process_group()


def batch():
    return torch.randn(5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 100


def make_norm(kind):
    norm = kind(3)
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0])
    norm.bias.data = torch.tensor([0.1, 0.0, -1.0])
    norm.running_mean += 99  # as it is after a while; far from it there are fewer digits to go by
    return norm


def test_synced_norms_are_the_norms_of_the_whole_batch(tmp_path):
    context = torch.multiprocessing.spawn(one_rank, (tmp_path / "meeting", tmp_path / "out"), nprocs=2)
    assert context is None
    parts = [torch.load(tmp_path / f"out{rank}") for rank in (0, 1)]
    x, norm = batch().requires_grad_(), make_norm(nn.BatchNorm3d)
    y = norm(x)
    (y**3).sum().backward()
    assert torch.allclose(torch.cat([part[0] for part in parts]), y, atol=2e-5)
    assert torch.allclose(torch.cat([part[1] for part in parts]), x.grad, atol=1e-4)
    for part in parts:
        for found, parameter in zip(part[2], norm.parameters(), strict=True):
            assert torch.allclose(found, parameter.grad, rtol=1e-4)
        for key, value in norm.state_dict().items():
            assert torch.allclose(part[3][key], value, rtol=1e-5)


def test_synced_networks_keep_their_keys_and_weights():
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.125)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 4, 32, 32)
    expected = model.eval()(x)
    model = to_synced_batchnorm(model)
    assert {type(m) for m in model.modules() if isinstance(m, nn.BatchNorm3d)} == {SyncedBatchNorm3d}
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), expected)


# Memory


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "r2plus1d_18", "c3d", "msf_c3d_fsam"])
def test_computing_blocks_twice_changes_nothing_but_memory(name, monkeypatch):
    """Outputs, gradients, running statistics and dropout; and what is kept for the backward pass is less."""
    for room in (resnet3d, c3d):  # its hooks would hide from ours what is kept
        monkeypatch.setattr(room, "lean", lambda wanted: nullcontext())

    def step(model):
        kept = 0
        torch.manual_seed(3)

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model.train()(x).square().sum()
        loss.backward()
        return loss, kept

    torch.manual_seed(0)
    plain = create_model(name, 3, width_mult=0.125, num_frames=8, img_size=32)
    twice = create_model(name, 3, width_mult=0.125, num_frames=8, img_size=32)
    twice.load_state_dict(plain.state_dict())
    twice = checkpoint_blocks(twice)
    (expected, kept), (found, kept_twice) = step(plain), step(twice)
    assert torch.equal(found, expected)
    assert kept_twice < 0.6 * kept
    for (key, one), other in zip(plain.named_parameters(), twice.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6, rtol=1e-4), key
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in twice.state_dict().items())


def test_a_step_in_parts_is_the_step_where_norms_do_not_care():
    """C3D has no norms; without dropout its step does not depend on how many parts it is computed in."""
    batch = {
        "clips": torch.randint(0, 256, (7, 1, 4, 32, 43, 3), dtype=torch.uint8, generator=torch.Generator()),
        "labels": torch.arange(7) % 2,
        "indices": list(range(7)),
        "places": list(range(7)),
        "failures": [],
        "warnings": [],
        "padded": [],
        "read_seconds": 0.0,
    }
    learned = []
    for parts in (1, 2, 3):
        overrides = ("model.name=c3d", "train.batch_size=7", "optim.weight_decay=0", f"train.micro_batches={parts}")
        recipe = load_recipe("small", [*TINY, *overrides])
        torch.manual_seed(0)
        model = create_model("c3d", 2, **recipe.model_kwargs())
        model.dropout.p = 0
        learner = Learner(model, recipe, ("a", "b"), Engine(recipe.train), (4, 3))
        losses = [learner.step(batch, 0, number, 0.01) for number in range(3)]
        learned.append((losses, model.state_dict()))
    (losses, weights), *others = learned
    assert losses[2] < losses[0]
    for other_losses, other in others:
        assert other_losses == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(other[key], value, atol=1e-5) for key, value in weights.items())


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(video_folder, tmp_path):
    curves = []
    for compiled in ("false", "true"):
        slow = ("train.epochs=1", "optim.lr=0.001")  # what rounds otherwise must not grow
        arguments = settings("model.name=r3d_18", *slow, "data.val_fraction=0", f"train.compile={compiled}")
        folder = tmp_path / compiled
        finished(command((), "train", video_folder, "--out", folder, *arguments))
        curves.append(float(next(csv.DictReader((folder / "metrics.csv").open()))["train_loss"]))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
