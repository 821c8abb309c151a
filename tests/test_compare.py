"""Comparisons of runs: folders of tiny real runs, and hand-written values where the arithmetic matters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, page_in_browser

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset
from msfnet.experiments.compare import ClassAccuracy, accuracy_per_class, compare_with_first, seed_groups
from msfnet.experiments.compare_page import compare
from msfnet.experiments.runs import FinishedRun, read_runs
from msfnet.models.registry import summarize
from msfnet.recipe import differing_keys, load_recipe
from msfnet.training.trainer import train
from msfnet.types import Accuracy, EvalResult, ScoredVideo, UserError, Views


def command(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["compare", *map(str, arguments)])
    return end.value.code


@pytest.fixture(scope="module")
def runs(tiny_run, video_folder, tmp_path_factory):
    """Three finished runs: the tiny one, a copy with another seed in its recipe, and one of another network."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copytree(tiny_run, root / "first")
    shutil.copytree(tiny_run, root / "again")
    text = (tiny_run / "recipe.toml").read_text("utf-8")
    (root / "again" / "recipe.toml").write_text(text.replace("seed = 0", "seed = 1"), "utf-8")
    recipe = load_recipe("small", [*TINY, "model.name=c3d"])
    train(read_dataset(video_folder), recipe, root / "other")
    return root


@pytest.fixture
def with_other_folders(runs, tmp_path):
    """The runs beside folders without a finished run."""
    root = shutil.copytree(runs, tmp_path / "runs")
    (root / "empty").mkdir()
    (root / "file.txt").write_text("no run")
    for name in ("unfinished", "unscored", "damaged", "newer", "weightless", "binary"):
        shutil.copytree(root / "first", root / name)
    lines = (root / "first" / "metrics.csv").read_text().splitlines()
    (root / "unfinished" / "metrics.csv").write_text("\n".join(lines[:2]) + "\n")
    (root / "unscored" / "scores.json").unlink()
    (root / "damaged" / "scores.json").write_text('{"classes": ["a"')
    text = (root / "first" / "recipe.toml").read_text()
    (root / "newer" / "recipe.toml").write_text(text + "\n[wings]\nspan = 3\n")
    (root / "weightless" / "weights.safetensors").unlink()
    (root / "binary" / "recipe.toml").write_bytes(b"\xff\xfe\x00")
    return root


def test_folders_without_a_finished_run_are_skipped(with_other_folders):
    runs, skipped = read_runs([str(with_other_folders / "*")])
    assert {run.name for run in runs} == {"first", "other", "again"}
    reasons = {path.rpartition("runs")[2][1:]: reason for path, reason in skipped.items()}
    expected = {
        "empty": "expected a run",
        "file.txt": "expected a run",
        "unfinished": "1 of 2 epochs",
        "unscored": "found no scores.json although there are test videos",
        "damaged": "expected JSON",
        "newer": "no recipe key",
        "weightless": "expected weights",
        "binary": "not valid TOML",
    }
    assert set(reasons) == set(expected)
    assert {name: text in reasons[name] for name, text in expected.items()} == dict.fromkeys(expected, True)
    assert not [reason for reason in reasons.values() if "\n" in reason]


def test_command_writes_a_page_and_names_skipped_folders(with_other_folders, tmp_path, capsys):
    assert command(with_other_folders / "*", "--out", tmp_path / "pages" / "compare.html") == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "pages" / "compare.html")
    assert all(err.count(str(with_other_folders / name)) >= 1 for name in ("empty", "unscored", "binary"))
    with page_in_browser(tmp_path / "pages" / "compare.html") as page:
        titles = page.locator("h2").all_inner_texts()
        cells = page.locator("td").all_inner_texts()
    assert titles == [
        *("Results", "Recipe differences", "Variation over seeds", "Paired comparison", "Training curves", "Cost"),
        *("Accuracy per class", "Skipped folders"),
    ]
    assert {"first", "other", "again", "c3d", "GoLeft", "GoRight"} <= set(cells)


def test_json_has_every_number(runs, tmp_path, capsys):
    assert command(runs / "first", runs / "other", "--json", "--out", tmp_path / "compare.html") == 0
    document = json.loads(capsys.readouterr().out)
    by_name = {run["folder"].rpartition("/")[2].rpartition("\\")[2]: run for run in document["runs"]}
    first = by_name["first"]
    scores = json.loads((runs / "first" / "scores.json").read_text())
    assert first["test_top1"] == scores["video"]["top1"]
    assert first["mean_class_accuracy"] == pytest.approx(sum(r["top1"] for r in scores["per_class"].values()) / 2)
    assert first["params"] == summarize("msf_r3d_18_fsam", 2, width_mult=0.125, num_frames=4, img_size=32).params
    assert first["recipe"] == {"model.name": "msf_r3d_18_fsam"}
    assert by_name["other"]["recipe"] == {"model.name": "c3d"}
    assert first["epochs"] == 2
    assert document["pairs"][0]["n_videos"] == scores["n_videos"]
    assert document["skipped"] == {}


def test_no_run_is_an_error(tmp_path, capsys):
    assert command(tmp_path / "none", tmp_path) == 2
    assert "expected folders of finished runs, found none" in capsys.readouterr().err
    with pytest.raises(UserError, match="no folder"):
        compare([])


def test_single_run_has_no_pairs(runs):
    assert compare([str(runs / "first")]).to_dict()["pairs"] == []


# By hand


def run_of(name, correct, *overrides):
    """A run that predicts each of some videos correctly (1) or not (0), the first half of class a, the rest of b."""
    labels = ["a" if i < len(correct) / 2 else "b" for i in range(len(correct))]
    videos = tuple(
        ScoredVideo(f"/{name}/{label}/{i}.mp4", label, label if flag else "c", 0.5)
        for i, (label, flag) in enumerate(zip(labels, correct, strict=True))
    )
    per_class = {}
    for label in ("a", "b"):
        own = [flag for flag, other in zip(correct, labels, strict=True) if other == label]
        per_class[label] = {"n": len(own), "top1": sum(own) / len(own)}
    top1 = sum(correct) / len(correct)
    clip, video = Accuracy(top1, 1.0), Accuracy(top1, 1.0, (0.0, 1.0))
    confusion = np.zeros((3, 3), int)
    result = EvalResult(
        ("a", "b", "c"), Views(), clip, video, per_class, confusion, len(correct), {}, (), videos, "test split"
    )
    history = [{"epoch": 1, "val_top1": top1, "seconds": 2.0}]
    recipe = load_recipe("small", overrides)
    return FinishedRun(Path(name), name, recipe, history, result, summarize("r3d_18", 3, width_mult=0.125))


def test_differing_keys():
    recipes = [load_recipe("small", sets) for sets in ((), ("train.seed=1",), ("model.kwargs.num_splits=3",))]
    assert differing_keys(recipes) == ["train.seed", "model.kwargs.num_splits"]
    assert differing_keys(recipes[:1]) == []


def test_runs_that_differ_in_the_seed_are_a_group():
    runs = [
        run_of("x", [1, 1, 1, 1]),
        run_of("other", [1, 0, 1, 0], "optim.lr=0.2"),
        run_of("y", [1, 1, 0, 0], "train.seed=1", "train.loggers=csv"),
        run_of("again", [1, 0, 1, 0], "optim.lr=0.2"),
    ]
    (group,) = seed_groups(runs)
    assert [run.name for run in group.runs] == ["x", "y"]
    assert group.mean_and_std("test_top1") == (0.75, pytest.approx(0.25 * 2**0.5))
    assert group.mean_and_std("peak_memory_mib") == (None, None)
    assert group.to_dict()["mean_class_accuracy"] == {"mean": 0.75, "std": pytest.approx(0.25 * 2**0.5)}


def test_pairs_count_videos_that_only_one_run_predicts_correctly():
    better = run_of("better", [1] * 10 + [1] * 8 + [0] * 2)
    worse = run_of("worse", [1] * 10 + [0] * 8 + [1] * 2)
    similar = run_of("similar", [1] * 10 + [1] * 7 + [0] * 3)
    first, second = compare_with_first([better, worse, similar])
    assert (first.n_videos, first.both_correct, first.only_first, first.only_second) == (20, 10, 8, 2)
    assert first.p == pytest.approx(2 * 112 / 1024)  # of two tests: Holm doubles the smaller p
    assert first.conclusion == "no significant difference"
    assert (second.only_first, second.only_second, second.p) == (1, 0, 1)
    (significant,) = compare_with_first([run_of("bad", [0] * 20), run_of("good", [1] * 20)])
    assert significant.conclusion == "good is significantly better"
    assert compare_with_first([better]) == []


def test_pairs_need_shared_videos():
    one, other = run_of("one", [1, 0]), run_of("other", [1, 0, 1, 1])
    assert [pair.n_videos for pair in compare_with_first([one, other])] == [1]  # a/0; 1.mp4 is of b and of a
    without = replace(one, result=replace(one.result, videos=()))
    assert compare_with_first([without, other]) == []
    assert compare_with_first([replace(one, result=None), other]) == []


def test_classes_with_the_largest_difference_come_first():
    rows = accuracy_per_class([run_of("x", [1, 1, 1, 0]), run_of("y", [1, 1, 0, 0])])
    assert rows == [ClassAccuracy("b", 2, (0.5, 0.0)), ClassAccuracy("a", 2, (1.0, 1.0))]
    assert [row.difference for row in rows] == [0.5, 0]
