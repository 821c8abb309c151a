"""Sweeps: what is refused, how trials are ranked, and real ones on a real cluster, killed and gone on with."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY, kill_once_there, logged

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset, read_manifest
from msfnet.data.shards.index import read_shards
from msfnet.data.shards.write import write_shards
from msfnet.experiments.cluster import (
    FINISHED,
    Machines,
    Outcome,
    Share,
    do_runs,
    fair_share,
    finished,
    perform,
    usable_cpus,
)
from msfnet.experiments.sweep import RunScore, TrialScore, plan_trials, rank, run_sweep, score_run, to_csv, to_table
from msfnet.experiments.trials import Run, Trial
from msfnet.recipe import load_recipe
from msfnet.types import UserError

SETTINGS = (*TINY, "data.val_fraction=0.2", "clip.views=1x1")
WORDS = [word for item in SETTINGS for word in ("--set", item)]


@pytest.fixture
def tiny_recipe():
    return load_recipe("small", SETTINGS)


@pytest.fixture
def keep_threads():
    import torch

    n, environment = torch.get_num_threads(), dict(os.environ)
    yield
    torch.set_num_threads(n)
    os.environ.clear()
    os.environ.update(environment)


def swept(data, recipe, out, grid=(), n_seeds=1, machines=Machines()):  # noqa: B008
    return run_sweep(data, recipe, plan_trials(recipe, grid, [], None), n_seeds, out, machines)


def leave_finished(out, run, top1=0.5):
    """What a finished run leaves, as far as a sweep looks at it."""
    (out / run.name).mkdir(parents=True)
    (out / run.name / "recipe.toml").write_text(run.recipe.to_toml())
    (out / run.name / "metrics.csv").write_text(f"epoch,val_loss,val_top1\n1,0.7,{top1}\n2,0.6,0.1\n")
    (out / run.name / FINISHED).write_text('{"problems": {}}')


# Ranking


def scored(name, *top1, loss=1.0, failed=()):
    scores = {f"{name}-seed{i}": RunScore(value, loss, 1) for i, value in enumerate(top1)}
    return TrialScore(Trial((f"optim.lr={name}",)), scores, dict.fromkeys(failed, "why"))


def test_trials_rank_by_mean_then_loss_with_whole_ones_first():
    trials = [
        scored("1", 0.5, 0.7),
        scored("2", 0.9, 0.1, loss=2.0),
        scored("3", 0.4, 0.6, loss=1.5),
        scored("4", 0.99, failed=["4-seed1"]),
        scored("5", failed=["5-seed0", "5-seed1"]),
    ]
    assert [trial.trial.overrides[0][-1] for trial in rank(trials)] == ["1", "3", "2", "4", "5"]
    assert trials[0].top1 == pytest.approx(0.6)
    assert trials[0].spread == pytest.approx(0.1 * 2**0.5)  # of a sample
    assert trials[3].spread is None
    rows = list(csv.DictReader(to_csv(rank(trials)).splitlines()))
    assert [(row["rank"], row["optim.lr"], row["n"], row["unreadable"]) for row in rows][2:] == [
        ("3", "2", "2", "0"),
        ("4", "4", "1", "1"),
        ("5", "5", "0", "2"),
    ]
    assert rows[-1]["val_top1"] == rows[-1]["val_top1_std"] == ""
    lines = to_table(rank(trials)).splitlines()
    assert lines[1] == "   1  60.0% +- 14.1%    2  optim.lr=1"
    assert lines[5] == "   5  -                 0  optim.lr=5  (2 failed)"
    assert json.loads(json.dumps(trials[3].to_dict()))["unreadable"] == {"4-seed1": "why"}


def test_a_run_counts_by_the_epoch_whose_weights_it_kept(tiny_run):
    from msfnet.models.checkpoint import load_weights

    score, kept = score_run(Run(tiny_run).history), load_weights(tiny_run).notes
    assert (score.epoch, round(score.top1, 5)) == (kept["epoch"], round(kept["val_top1"], 5))
    rows = [{"epoch": 1.0, "val_top1": 0.5, "val_loss": 0.1}, {"epoch": 2.0, "val_top1": 0.5}]
    assert score_run(rows).epoch == 2
    assert score_run(rows).to_dict()["val_loss"] is None  # no validation video could be read


# What a run gets

CPU2, CPU16, GPU4 = {"CPU": 2.0}, {"CPU": 16.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "n_runs", "machines", "share"),
    [
        ([CPU2], 8, Machines(), Share(1, 0)),
        ([CPU2], 1, Machines(), Share(2, 0)),
        ([CPU16], 3, Machines(), Share(5, 0)),
        ([CPU16, CPU16], 1, Machines(), Share(16, 0)),
        ([CPU16, {}], 16, Machines(), Share(1, 0)),
        ([CPU16], 100, Machines(cpus_per_trial=4), Share(4, 0)),
        ([GPU4], 100, Machines(), Share(4, 1)),
        ([GPU4, {"CPU": 8.0, "GPU": 4.0}], 1, Machines(), Share(2, 1)),
        ([GPU4, CPU2], 100, Machines(gpus_per_trial=0.5), Share(2, 0.5)),
        ([GPU4], 100, Machines(gpus_per_trial=2), Share(8, 2)),
        ([GPU4], 100, Machines(gpus_per_trial=0), Share(1, 0)),
        ([{"CPU": 2.0, "GPU": 4.0}], 100, Machines(), Share(1, 1)),
    ],
)
def test_shares(nodes, n_runs, machines, share):
    assert fair_share(nodes, n_runs, machines) == share


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may use all CPUs")
def test_a_process_bound_to_one_cpu_has_one():
    script = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    script += "from msfnet.experiments import cluster;"
    done = subprocess.check_output([sys.executable, "-c", f"{script} print(cluster.usable_cpus())"], text=True)
    assert int(done) == 1


@pytest.mark.parametrize(
    ("nodes", "machines", "message"),
    [
        ([CPU2], Machines(cpus_per_trial=3), "a machine with 3 CPU and 0 GPU for a run, found 2 CPU and 0 GPU"),
        ([CPU16, CPU2], Machines(gpus_per_trial=1), "and 1 GPU for a run, found 16 CPU and 0 GPU, 2 CPU and 0 GPU"),
        ([], Machines(), "found none"),
    ],
)
def test_what_no_machine_has_is_refused_instead_of_waited_for(nodes, machines, message):
    with pytest.raises(UserError, match=message):
        fair_share(nodes, 4, machines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus_per_trial": 0}, "1 CPU or more for a run, found 0"),
        ({"gpus_per_trial": 1.5}, r"a part of a GPU or whole ones for a run, found 1\.5"),
        ({"gpus_per_trial": -1}, "found -1"),
        ({"address": "ray://host:10001"}, "as auto or HOST:PORT, found ray://host:10001"),
    ],
)
def test_machines_that_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        Machines(**arguments)


# What is refused before anything is run


def test_ranking_needs_videos_held_out_of_training(video_folder, tmp_path, tiny_recipe):
    data = read_dataset(video_folder)
    recipe = load_recipe("small", [*SETTINGS, "data.val_fraction=0"])
    with pytest.raises(UserError, match=r"expected videos held out of training .* --set data\.val_fraction=0\.2"):
        swept(data, recipe, tmp_path / "out")
    few = replace(data, items=tuple(item for item in data.items if item.group in ("g01", "g02")))
    with pytest.raises(UserError, match="found none with"):  # a group to train on, one to test on, none left
        swept(few, tiny_recipe, tmp_path / "out")
    with pytest.raises(UserError, match="--seeds of 1 or more, found 0"):
        swept(data, tiny_recipe, tmp_path / "out", n_seeds=0)
    assert not (tmp_path / "out").exists()


def test_other_recipes_and_other_videos_are_not_mixed_in(video_folder, tmp_path, tiny_recipe):
    data, run = read_dataset(video_folder), Run("a-seed0", tiny_recipe)
    leave_finished(tmp_path, run)
    assert do_runs(data, [run], tmp_path, Machines(), score_test=True) == [Outcome("a-seed0")]
    other = Run("a-seed0", load_recipe("small", [*SETTINGS, "optim.lr=0.3"]))
    with pytest.raises(UserError, match=r"holds a-seed0 with optim\.lr = 0\.05, not 0\.3; choose another --out"):
        do_runs(data, [other], tmp_path, Machines(), score_test=True)
    with pytest.raises(UserError, match=r"on other videos .*\(20 there, 19 here\)"):
        do_runs(replace(data, items=data.items[1:]), [run], tmp_path, Machines(), score_test=True)


def test_finished_runs_are_read_and_need_no_engine(video_folder, tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for lr, top1 in (("0.1", 0.4), ("0.2", 0.6)):
        for seed in (0, 1):
            recipe = load_recipe("small", [*SETTINGS, f"optim.lr={lr}", f"train.seed={seed}"])
            leave_finished(tmp_path, Run(f"lr={lr}-seed{seed}", recipe), top1)
    lines = []
    with logged(lines.append):
        sweep = swept(read_dataset(video_folder), tiny_recipe, tmp_path, ["optim.lr=0.1,0.2"], 2)
    assert [(trial.trial.name, trial.top1, len(trial.scores)) for trial in sweep.trials] == [
        ("lr=0.2", 0.6, 2),
        ("lr=0.1", 0.4, 2),
    ]
    assert any(line.endswith("4 finished before, 0 to do") for line in lines)
    best = load_recipe(str(tmp_path / "best.toml"))
    assert best == load_recipe("small", [*SETTINGS, "optim.lr=0.2"])
    with pytest.raises(UserError, match=r"Ray, which is not there: pip install 'msfnet\[scale\]'"):
        swept(read_dataset(video_folder), tiny_recipe, tmp_path, ["optim.lr=0.1,0.3"], 2)


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("fraction", [0, 0.2])
def test_shards_are_swept_over_if_they_hold_validation_videos(video_folder, tmp_path, fraction):
    recipe = load_recipe("small", [*SETTINGS, f"data.val_fraction={fraction}", "train.epochs=1"])
    write_shards(read_dataset(video_folder), recipe, video_folder, tmp_path / "shards", shard_bytes=2**20)
    shards, run = read_shards(str(tmp_path / "shards")), Run("recipe-seed0", recipe)
    if not fraction:
        with pytest.raises(UserError, match="write the shards with --set"):
            swept(shards, recipe, tmp_path / "out")
        return
    traveled = pickle.loads(pickle.dumps(shards))  # as to another machine
    assert perform(traveled, run, tmp_path / "out", Path.cwd(), Share(1, 0), score_test=False).error is None
    (trial,) = swept(shards, recipe, tmp_path / "out").trials
    assert len(trial.scores) == 1
    assert not (tmp_path / "out" / run.name / "scores.json").exists()


# One run, without a cluster


@pytest.mark.usefixtures("keep_threads")
def test_a_run_is_brought_to_its_end_once_and_leaves_the_test_videos_alone(video_folder, tmp_path, tiny_recipe):
    import torch

    data, run = read_dataset(video_folder), Run("a-seed0", tiny_recipe)
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "weights.safetensors").write_bytes(b"of a run killed before its first checkpoint")
    assert perform(data, run, tmp_path, Path.cwd(), Share(1, 0), score_test=False) == Outcome("a-seed0")
    assert torch.get_num_threads() == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert finished(tmp_path, run.name) == Outcome("a-seed0")
    assert finished(tmp_path, "b-seed0") is None
    folder = tmp_path / run.name
    assert not (folder / "scores.json").exists()
    assert any(item.split == "test" for item in read_manifest(folder / "split.csv").items)
    assert "epoch   2/2" in (folder / "log.txt").read_text()


@pytest.mark.usefixtures("keep_threads")
def test_a_run_that_fails_says_why_in_one_line(video_folder, tmp_path, monkeypatch):
    data = read_dataset(video_folder)
    run = Run("a-seed0", load_recipe("small", [*SETTINGS, "model.kwargs.num_splits=99"]))
    outcome = perform(data, run, tmp_path, Path.cwd(), Share(1, 0), score_test=False)
    assert "found num_splits=99" in outcome.error
    assert finished(tmp_path, run.name) is None
    monkeypatch.setattr("msfnet.training.trainer.train", lambda *arguments, **options: 1 / 0)
    outcome = perform(data, run, tmp_path, Path.cwd(), Share(1, 0), score_test=False)
    assert outcome.error == "ZeroDivisionError: division by zero (a-seed0/log.txt shows where)"
    assert "Traceback" in (tmp_path / run.name / "log.txt").read_text()
    outcome = perform(data, run, tmp_path, tmp_path / "elsewhere", Share(1, 0), score_test=False)
    assert outcome.error.endswith("elsewhere; all machines need the same file system")


# Real clusters


@pytest.fixture
def cluster(ray):
    """A head and a second node, of one CPU each, with processes of their own."""
    if sys.platform == "win32":
        pytest.skip("Ray has no clusters on Windows")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def wait_for_checkpoint(folder):
    deadline = time.monotonic() + 600  # Ray itself may take minutes to start on a busy machine
    while time.monotonic() < deadline and not (folder / CHECKPOINT).exists():
        time.sleep(0.02)


@pytest.mark.slow
def test_a_sweep_on_two_nodes_outlives_a_killed_process_a_lost_node_and_a_failing_trial(
    video_folder, tmp_path, cluster, capsys
):
    """Two trials by two seeds, and one that cannot be; a process is killed after its first epoch, then a machine."""
    out, killed = tmp_path / "out", []

    def kill():
        victim = out / "kwargs.num_splits=2-seed1"
        wait_for_checkpoint(victim)
        killed.append(int((victim / "log.txt").read_text().split()[1]))
        os.kill(killed[0], signal.SIGKILL)
        wait_for_checkpoint(out / "kwargs.num_splits=3-seed1")
        cluster.remove_node(cluster.second, allow_graceful=False)
        killed.append("node")

    threading.Thread(target=kill, daemon=True).start()
    command = ["sweep", video_folder, "--out", out, *WORDS, "--set", "train.epochs=4", "--seeds", "2", "--json"]
    command += ["--grid", "model.kwargs.num_splits=2,3,99", "--ray-address", cluster.address]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in command])
    captured = capsys.readouterr()
    assert stopped.value.code == 1, captured.err
    assert killed[1:] == ["node"]
    assert "kwargs.num_splits=2-seed1: its process or machine died (WorkerCrashedError); going on" in captured.err
    assert "attempt 2 of 3" in captured.err
    log = (out / "kwargs.num_splits=2-seed1" / "log.txt").read_text()
    assert log.count("going on from the last checkpoint") == 1
    assert log.count("epoch   1/4") == 1
    document = json.loads(captured.out)
    assert {trial["name"]: trial["n"] for trial in document["trials"]} == {
        "kwargs.num_splits=2": 2,
        "kwargs.num_splits=3": 2,
        "kwargs.num_splits=99": 0,
    }
    assert all("found num_splits=99" in reason for reason in document["trials"][-1]["unreadable"].values())
    assert [len(Run(folder).history) for folder in sorted(out.glob("*groups=[23]-seed*"))] == [4] * 4
    assert not list(out.glob("*/scores.json"))
    tests = [
        {item.path for item in read_manifest(folder / "split.csv").items if item.split == "test"}
        for folder in out.glob("*groups=[23]-seed*")
    ]
    assert tests[0]
    assert all(test == tests[0] for test in tests)
    assert load_recipe(document["best"]).train.epochs == 4


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_grows(video_folder, tmp_path, ray):
    """On this machine alone: killed with its last run half done, started and ended, then started with a second seed."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "msfnet", "sweep", str(video_folder), "--out", str(out), *WORDS]
    command += ["--set", "train.epochs=4", "--grid", "optim.lr=0.01,0.02", "--cpus-per-trial", str(usable_cpus())]
    half_done = out / "lr=0.02-seed0"
    kill_once_there(command, half_done / CHECKPOINT)
    whole = (out / "lr=0.01-seed0" / "metrics.csv").read_bytes()

    if sys.platform != "win32":
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as stopped:
            lines = [next(line for line in stopped.stderr if line.startswith("each on"))]
            stopped.terminate()
            lines += stopped.stderr.readlines()
        assert (stopped.returncode, lines[-1]) == (1, "stopped; the same command goes on\n")

    again = subprocess.run([*command, "--seeds", "2"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "4 runs in" in again.stderr
    assert "1 finished before, 3 to do" in again.stderr
    assert (out / "lr=0.01-seed0" / "metrics.csv").read_bytes() == whole
    assert len(Run(half_done).history) == 4
    assert (half_done / "log.txt").read_text().count("epoch   1/4") == 1
    assert again.stdout.splitlines()[0].split() == ["rank", "validation", "top-1", "n", "trial"]
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["n"] for row in rows] == ["2", "2"]
    assert float(rows[0]["val_top1"]) >= float(rows[1]["val_top1"])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: "),
        ("127.0.0.1:99999", "no Ray cluster answers at 127.0.0.1:99999: "),
        ("somewhere", "as auto or HOST:PORT, found somewhere"),
    ],
)
@pytest.mark.usefixtures("ray")
def test_an_address_where_nothing_answers_is_refused_at_once(video_folder, tmp_path, tiny_recipe, address, message):
    with pytest.raises(UserError, match=message):
        swept(read_dataset(video_folder), tiny_recipe, tmp_path / "out", machines=Machines(address))


ALONE = """
import functools
import sys
import ray._private.services as services
services.find_gcs_addresses = functools.cache(frozenset)  # none of another test's
from msfnet.cli import main
from msfnet.run_folder import CHECKPOINT, Run
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_no_cluster_at_an_address_is_said_in_one_line(video_folder, tmp_path, ray):
    command = [sys.executable, "-c", ALONE, "sweep", str(video_folder), "--out", str(tmp_path / "out"), *WORDS]
    elsewhere = os.environ | {"RAY_TMPDIR": str(tmp_path)}  # where the address of such a cluster would lie
    done = subprocess.run([*command, "--ray-address", "auto"], capture_output=True, text=True, env=elsewhere)
    assert done.returncode == 2
    assert "no Ray cluster answers at auto" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
