"""Experiment trackers: TensorBoard's event files read back, trackers by name, packages that are not installed."""

import csv
import struct
from collections import defaultdict

import pytest
from conftest import TINY
from tensorboardX.proto.event_pb2 import Event

from msfnet.data.annotations.readers import read_dataset
from msfnet.recipe import Tracker, load_recipe
from msfnet.run_folder import Run
from msfnet.training import loggers
from msfnet.training.loggers import LOGS, TRACKERS, make_loggers, require_trackers
from msfnet.training.trainer import train
from msfnet.types import UserError


def scalars(folder):
    """Tag -> [(step, value)] of all event files: records of length, checksum, event, checksum."""
    found = defaultdict(list)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
    return found


@pytest.fixture(scope="module")
def followed(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "followed"
    recipe = load_recipe("small", [*TINY, "train.loggers=csv"])
    train(read_dataset(video_folder), recipe, folder)
    return folder


def test_tensorboard_has_every_step_and_every_epoch(followed):
    found = scalars(followed / LOGS)
    rows = Run(followed).history
    steps = [step for step, _ in found["step/loss"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) % len(rows) == 0
    assert len(found["step/lr"]) == len(steps)
    per_epoch = len(steps) // len(rows)
    for key in ("train_loss", "val_top1", "lr"):
        expected = [(per_epoch * n, row[key]) for n, row in enumerate(rows, 1)]
        assert [step for step, _ in found[f"epoch/{key}"]] == [step for step, _ in expected]
        assert [value for _, value in found[f"epoch/{key}"]] == pytest.approx([v for _, v in expected], rel=1e-4)


def test_the_recipe_goes_with_it(followed):
    assert "clip.crop_size: 32" in (followed / LOGS / "hparams.yaml").read_text("utf-8")


def test_a_named_tracker_gets_the_same(followed):
    (file,) = (followed / LOGS / "csv").glob("*/metrics.csv")
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    losses = [float(row["step/loss"]) for row in rows if row["step/loss"]]
    assert losses == pytest.approx([value for _, value in scalars(followed / LOGS)["step/loss"]], rel=1e-5)


def test_every_name_of_a_recipe_has_its_tracker():
    assert set(TRACKERS) == set(Tracker.__args__)


def test_without_names_there_is_tensorboard_alone(tmp_path):
    (logger,) = make_loggers(load_recipe("small"), tmp_path)
    assert logger.log_dir.rstrip("/\\") == str(tmp_path / LOGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow", "comet"])
def test_a_missing_package_is_named_with_its_install_command(name, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=f"names {name}, .* not installed; run pip install {TRACKERS[name].package}$"):
        require_trackers([name])


def test_a_missing_package_stops_the_run_before_it_begins(video_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda module: None)
    recipe = load_recipe("small", [*TINY, "train.loggers=wandb"])
    with pytest.raises(UserError, match="pip install wandb"):
        train(read_dataset(video_folder), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
