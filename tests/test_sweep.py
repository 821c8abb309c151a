"""Sweeps: how trials are ranked, what is refused, and real sweeps on a Ray cluster that are killed and resumed."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import TINY, kill_once_there, logged

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset
from msfnet.data.shards.index import read_shards
from msfnet.data.shards.write import write_shards
from msfnet.experiments.cluster import ClusterConfig, choose_resources, train_runs, usable_cpus
from msfnet.experiments.sweep import RunScore, TrialResult, plan_trials, rank, run_sweep, score_run, to_csv, to_table
from msfnet.experiments.trials import PlannedRun, Trial
from msfnet.experiments.worker import Resources, RunStatus, finished_status, train_run
from msfnet.recipe import load_recipe
from msfnet.run_folder import CHECKPOINT, FINISHED, Run
from msfnet.types import UserError

SETTINGS = (*TINY, "data.val_fraction=0.2", "clip.views=1x1")
WORDS = [word for item in SETTINGS for word in ("--set", item)]


@pytest.fixture
def tiny_recipe():
    return load_recipe("small", SETTINGS)


@pytest.fixture
def restored_process():
    """Undo what a run does to its process: the number of threads and the environment."""
    import torch

    n, environment = torch.get_num_threads(), dict(os.environ)
    yield
    torch.set_num_threads(n)
    os.environ.clear()
    os.environ.update(environment)


def sweep(data, recipe, out, grid=(), n_seeds=1, config=ClusterConfig()):  # noqa: B008
    return run_sweep(data, recipe, plan_trials(recipe, grid, [], None), n_seeds, out, config)


def leave_finished(out, run, top1=0.5):
    """Write the files of a finished run that a sweep reads."""
    (out / run.name).mkdir(parents=True)
    (out / run.name / "recipe.toml").write_text(run.recipe.to_toml())
    (out / run.name / "metrics.csv").write_text(f"epoch,val_loss,val_top1\n1,0.7,{top1}\n2,0.6,0.1\n")
    (out / run.name / FINISHED).write_text('{"unreadable": {}}')


# Ranking


def result_of(name, *top1, loss=1.0, failed=()):
    scores = {f"{name}-seed{i}": RunScore(value, loss, 1) for i, value in enumerate(top1)}
    return TrialResult(Trial((f"optim.lr={name}",)), scores, dict.fromkeys(failed, "reason"))


RESULTS = [
    result_of("1", 0.5, 0.7),
    result_of("2", 0.9, 0.1, loss=2.0),
    result_of("3", 0.4, 0.6, loss=1.5),
    result_of("4", 0.99, failed=["4-seed1"]),
    result_of("5", failed=["5-seed0", "5-seed1"]),
]


def test_trials_are_ranked_by_mean_then_loss():
    """Trials with failed runs come last."""
    assert [result.trial.overrides[0][-1] for result in rank(RESULTS)] == ["1", "3", "2", "4", "5"]
    assert RESULTS[0].top1 == pytest.approx(0.6)
    assert RESULTS[0].top1_std == pytest.approx(0.1 * 2**0.5)  # of a sample
    assert RESULTS[3].top1_std is None


def test_ranking_is_written_as_csv_text_and_json():
    rows = list(csv.DictReader(to_csv(rank(RESULTS)).splitlines()))
    assert [(row["rank"], row["optim.lr"], row["n"], row["failed"]) for row in rows][2:] == [
        ("3", "2", "2", "0"),
        ("4", "4", "1", "1"),
        ("5", "5", "0", "2"),
    ]
    assert rows[-1]["val_top1"] == rows[-1]["val_top1_std"] == ""
    lines = to_table(rank(RESULTS)).splitlines()
    assert lines[1] == "   1  60.0% +- 14.1%    2  optim.lr=1"
    assert lines[5] == "   5  -                 0  optim.lr=5  (2 failed)"
    assert json.loads(json.dumps(RESULTS[3].to_dict()))["failed"] == {"4-seed1": "reason"}


def test_run_is_scored_at_the_epoch_of_its_weights(tiny_run):
    from msfnet.models.checkpoint import load_weights

    score, kept = score_run(Run(tiny_run).history), load_weights(tiny_run).notes
    assert (score.epoch, round(score.top1, 5)) == (kept["epoch"], round(kept["val_top1"], 5))
    rows = [{"epoch": 1.0, "val_top1": 0.5, "val_loss": 0.1}, {"epoch": 2.0, "val_top1": 0.5}]
    assert score_run(rows).epoch == 2
    assert score_run(rows).to_dict()["val_loss"] is None  # no validation video could be read


# Resources of a run

CPU2, CPU16, GPU4 = {"CPU": 2.0}, {"CPU": 16.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "n_runs", "config", "resources"),
    [
        ([CPU2], 8, ClusterConfig(), Resources(1, 0)),
        ([CPU2], 1, ClusterConfig(), Resources(2, 0)),
        ([CPU16], 3, ClusterConfig(), Resources(5, 0)),
        ([CPU16, CPU16], 1, ClusterConfig(), Resources(16, 0)),
        ([CPU16, {}], 16, ClusterConfig(), Resources(1, 0)),
        ([CPU16], 100, ClusterConfig(cpus_per_trial=4), Resources(4, 0)),
        ([GPU4], 100, ClusterConfig(), Resources(4, 1)),
        ([GPU4, {"CPU": 8.0, "GPU": 4.0}], 1, ClusterConfig(), Resources(2, 1)),
        ([GPU4, CPU2], 100, ClusterConfig(gpus_per_trial=0.5), Resources(2, 0.5)),
        ([GPU4], 100, ClusterConfig(gpus_per_trial=2), Resources(8, 2)),
        ([GPU4], 100, ClusterConfig(gpus_per_trial=0), Resources(1, 0)),
        ([{"CPU": 2.0, "GPU": 4.0}], 100, ClusterConfig(), Resources(1, 1)),
    ],
)
def test_resources(nodes, n_runs, config, resources):
    assert choose_resources(nodes, n_runs, config) == resources


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restricts the CPUs of a process")
def test_usable_cpus_of_a_process_bound_to_one_cpu():
    script = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    script += "from msfnet.experiments import cluster;"
    done = subprocess.check_output([sys.executable, "-c", f"{script} print(cluster.usable_cpus())"], text=True)
    assert int(done) == 1


@pytest.mark.parametrize(
    ("nodes", "config", "message"),
    [
        ([CPU2], ClusterConfig(cpus_per_trial=3), "with 3 CPUs and 0 GPUs for a run, found 2 CPUs and 0 GPUs"),
        ([CPU16, CPU2], ClusterConfig(gpus_per_trial=1), "1 GPUs for a run, found 16 CPUs and 0 GPUs; 2 CPUs and 0"),
        ([], ClusterConfig(), "found none"),
    ],
)
def test_resources_that_no_machine_has_are_refused(nodes, config, message):
    with pytest.raises(UserError, match=message):
        choose_resources(nodes, 4, config)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cpus_per_trial": 0}, "--cpus-per-trial of 1 or more, found 0"),
        ({"gpus_per_trial": 1.5}, r"--gpus-per-trial of 0 to 1 or a whole number, found 1\.5"),
        ({"gpus_per_trial": -1}, "found -1"),
        ({"address": "ray://host:10001"}, "auto or HOST:PORT, found ray://host:10001"),
    ],
)
def test_invalid_cluster_configs_are_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        ClusterConfig(**kwargs)


# What is refused before anything is trained


def test_ranking_needs_validation_videos(video_folder, tmp_path, tiny_recipe):
    data = read_dataset(video_folder)
    recipe = load_recipe("small", [*SETTINGS, "data.val_fraction=0"])
    with pytest.raises(UserError, match=r"expected validation videos .* use --set data\.val_fraction=0\.2"):
        sweep(data, recipe, tmp_path / "out")
    few = data.with_items(item for item in data.items if item.group in ("g01", "g02"))
    with pytest.raises(UserError, match="found none with"):  # one group to train on, one to test on, none left
        sweep(few, tiny_recipe, tmp_path / "out")
    with pytest.raises(UserError, match="--seeds of 1 or more, found 0"):
        sweep(data, tiny_recipe, tmp_path / "out", n_seeds=0)
    assert not (tmp_path / "out").exists()


def test_runs_with_another_recipe_or_other_videos_are_refused(video_folder, tmp_path, tiny_recipe):
    data, run = read_dataset(video_folder), PlannedRun("a-seed0", tiny_recipe)
    leave_finished(tmp_path, run)
    assert train_runs(data, [run], tmp_path, ClusterConfig(), score_test=True) == [RunStatus("a-seed0")]
    other = PlannedRun("a-seed0", load_recipe("small", [*SETTINGS, "optim.lr=0.3", "train.epochs=9"]))
    with pytest.raises(UserError, match=r"a-seed0 with other values of optim\.lr, train\.epochs; choose"):
        train_runs(data, [other], tmp_path, ClusterConfig(), score_test=True)
    fewer = data.with_items(data.items[1:])
    with pytest.raises(UserError, match=r"on other videos .*\(20 videos there, 19 here\)"):
        train_runs(fewer, [run], tmp_path, ClusterConfig(), score_test=True)


def test_finished_runs_are_ranked_without_ray(video_folder, tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for lr, top1 in (("0.1", 0.4), ("0.2", 0.6)):
        for seed in (0, 1):
            recipe = load_recipe("small", [*SETTINGS, f"optim.lr={lr}", f"train.seed={seed}"])
            leave_finished(tmp_path, PlannedRun(f"lr={lr}-seed{seed}", recipe), top1)
    lines = []
    with logged(lines.append):
        ranked = sweep(read_dataset(video_folder), tiny_recipe, tmp_path, ["optim.lr=0.1,0.2"], 2)
    assert [(result.trial.name, result.top1, len(result.scores)) for result in ranked.trials] == [
        ("lr=0.2", 0.6, 2),
        ("lr=0.1", 0.4, 2),
    ]
    assert any(line.endswith("4 finished before, 0 to train") for line in lines)
    best = load_recipe(tmp_path / "best.toml")
    assert best == load_recipe("small", [*SETTINGS, "optim.lr=0.2"])
    with pytest.raises(UserError, match=r"Ray is not installed; run pip install 'msfnet\[ray\]'"):
        sweep(read_dataset(video_folder), tiny_recipe, tmp_path, ["optim.lr=0.1,0.3"], 2)


@pytest.mark.usefixtures("restored_process")
@pytest.mark.parametrize("fraction", [0, 0.2])
def test_shards_need_validation_videos(video_folder, tmp_path, fraction):
    recipe = load_recipe("small", [*SETTINGS, f"data.val_fraction={fraction}", "train.epochs=1"])
    write_shards(read_dataset(video_folder), recipe, video_folder, tmp_path / "shards", shard_bytes=2**20)
    shards, run = read_shards(str(tmp_path / "shards")), PlannedRun("recipe-seed0", recipe)
    if not fraction:
        with pytest.raises(UserError, match="with shards when they are written"):
            sweep(shards, recipe, tmp_path / "out")
        return
    sent = pickle.loads(pickle.dumps(shards))  # as to another machine
    assert train_run(sent, run, tmp_path / "out", Path.cwd(), Resources(1, 0), score_test=False).error is None
    (result,) = sweep(shards, recipe, tmp_path / "out").trials
    assert len(result.scores) == 1
    assert not (tmp_path / "out" / run.name / "scores.json").exists()


# One run, without a cluster


@pytest.mark.usefixtures("restored_process")
def test_run_is_trained_to_its_end_without_the_test_set(video_folder, tmp_path, tiny_recipe):
    import torch

    data, run = read_dataset(video_folder), PlannedRun("a-seed0", tiny_recipe)
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "weights.safetensors").write_bytes(b"of a run killed before its first checkpoint")
    assert train_run(data, run, tmp_path, Path.cwd(), Resources(1, 0), score_test=False) == RunStatus("a-seed0")
    assert torch.get_num_threads() == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert finished_status(tmp_path, run.name) == RunStatus("a-seed0")
    assert finished_status(tmp_path, "b-seed0") is None
    folder = tmp_path / run.name
    assert not (folder / "scores.json").exists()
    assert any(video.split == "test" for video in Run(folder).split)
    assert "epoch   2/2" in (folder / "log.txt").read_text()


@pytest.mark.usefixtures("restored_process")
def test_failed_run_returns_its_reason_in_one_line(video_folder, tmp_path, monkeypatch):
    data = read_dataset(video_folder)
    run = PlannedRun("a-seed0", load_recipe("small", [*SETTINGS, "model.kwargs.num_splits=99"]))
    status = train_run(data, run, tmp_path, Path.cwd(), Resources(1, 0), score_test=False)
    assert "found num_splits=99" in status.error
    assert finished_status(tmp_path, run.name) is None
    monkeypatch.setattr("msfnet.training.trainer.train", lambda *arguments, **options: 1 / 0)
    status = train_run(data, run, tmp_path, Path.cwd(), Resources(1, 0), score_test=False)
    assert status.error == "ZeroDivisionError: division by zero (traceback in a-seed0/log.txt)"
    assert "Traceback" in (tmp_path / run.name / "log.txt").read_text()
    status = train_run(data, run, tmp_path, tmp_path / "elsewhere", Resources(1, 0), score_test=False)
    assert status.error.endswith("elsewhere; all machines need the same file system")


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
def test_sweep_survives_a_killed_process_and_a_lost_node(video_folder, tmp_path, cluster, capsys):
    """Two trials with two seeds each and an invalid one; a process is killed after its first epoch, then a machine."""
    out, killed = tmp_path / "out", []

    def kill():
        victim = out / "num_splits=2-seed1"
        wait_for_checkpoint(victim)
        killed.append(int((victim / "log.txt").read_text().split()[1]))
        os.kill(killed[0], signal.SIGKILL)
        wait_for_checkpoint(out / "num_splits=3-seed1")
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
    assert "num_splits=2-seed1: its process or machine died (WorkerCrashedError); resuming" in captured.err
    assert "attempt 2 of 3" in captured.err
    log = (out / "num_splits=2-seed1" / "log.txt").read_text()
    assert log.count("resuming from the last checkpoint") == 1
    assert log.count("epoch   1/4") == 1
    document = json.loads(captured.out)
    assert {trial["name"]: trial["n"] for trial in document["trials"]} == {
        "num_splits=2": 2,
        "num_splits=3": 2,
        "num_splits=99": 0,
    }
    assert all("found num_splits=99" in reason for reason in document["trials"][-1]["failed"].values())
    assert [len(Run(folder).history) for folder in sorted(out.glob("num_splits=[23]-seed*"))] == [4] * 4
    assert not list(out.glob("*/scores.json"))
    tests = [
        {video.path for video in Run(folder).split if video.split == "test"}
        for folder in out.glob("num_splits=[23]-seed*")
    ]
    assert tests[0]
    assert all(test == tests[0] for test in tests)
    assert load_recipe(document["best"]).train.epochs == 4


@pytest.mark.slow
def test_killed_sweep_is_resumed_and_extended(video_folder, tmp_path, ray):
    """On this machine: killed with its last run half done, started and terminated, then started with a second seed."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "msfnet", "sweep", str(video_folder), "--out", str(out), *WORDS]
    command += ["--set", "train.epochs=4", "--grid", "optim.lr=0.01,0.02", "--cpus-per-trial", str(usable_cpus())]
    half_done = out / "lr=0.02-seed0"
    kill_once_there(command, half_done / CHECKPOINT)
    whole = (out / "lr=0.01-seed0" / "metrics.csv").read_bytes()

    if sys.platform != "win32":
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as stopped:
            lines = [next(line for line in stopped.stderr if "each run has" in line)]
            stopped.terminate()
            lines += stopped.stderr.readlines()
        assert stopped.returncode == 143, "".join(lines)
        assert "Traceback" not in "".join(lines)

    again = subprocess.run([*command, "--seeds", "2"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "4 runs in" in again.stderr
    assert "1 finished before, 3 to train" in again.stderr
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
        ("somewhere", "auto or HOST:PORT, found somewhere"),
    ],
)
@pytest.mark.usefixtures("ray")
def test_address_without_a_cluster_is_refused_at_once(video_folder, tmp_path, tiny_recipe, address, message):
    with pytest.raises(UserError, match=message):
        sweep(read_dataset(video_folder), tiny_recipe, tmp_path / "out", config=ClusterConfig(address))


ALONE = """
import functools
import sys
import ray._private.services as services
services.find_gcs_addresses = functools.cache(frozenset)  # none of another test's
from msfnet.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_machine_without_a_cluster_is_reported_in_one_line(video_folder, tmp_path, ray):
    command = [sys.executable, "-c", ALONE, "sweep", str(video_folder), "--out", str(tmp_path / "out"), *WORDS]
    elsewhere = os.environ | {"RAY_TMPDIR": str(tmp_path)}  # Ray would find the address of a running cluster there
    done = subprocess.run([*command, "--ray-address", "auto"], capture_output=True, text=True, env=elsewhere)
    assert done.returncode == 2
    assert "no Ray cluster answers at auto" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
