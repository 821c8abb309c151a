"""Runs side by side: real folders of tiny runs, and hand-written values where the arithmetic matters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, page_in_browser

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset
from msfnet.experiments.compare import Run, class_rows, differing_keys, duels, read_runs, seed_groups
from msfnet.experiments.compare_page import compare
from msfnet.models.registry import summarize
from msfnet.recipe import load_recipe
from msfnet.training.trainer import train
from msfnet.types import EvalResult, ScoredVideo, UserError, Views


def command(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["report", *map(str, arguments)])
    return end.value.code


@pytest.fixture(scope="module")
def runs(tiny_run, video_folder, tmp_path_factory):
    """Three finished runs: the tiny one, the same as if of another seed, and one of another network."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copytree(tiny_run, root / "first")
    shutil.copytree(tiny_run, root / "again")
    text = (tiny_run / "recipe.toml").read_text("utf-8")
    (root / "again" / "recipe.toml").write_text(text.replace("seed = 0", "seed = 1"), "utf-8")
    recipe = load_recipe("small", [*TINY, "model.name=c3d"])
    train(read_dataset(video_folder), recipe, root / "other")
    return root


@pytest.fixture
def spoilt(runs, tmp_path):
    """The runs beside folders that are none: empty, a file, unfinished, unscored, damaged, of another version."""
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


def test_what_is_no_finished_run_is_named_and_left_out(spoilt):
    runs, skipped = read_runs([str(spoilt / "*")])
    assert {run.name for run in runs} == {"first", "other", "again"}
    reasons = {path.rpartition("runs")[2][1:]: reason for path, reason in skipped.items()}
    expected = {
        "empty": "no run",
        "file.txt": "no run",
        "unfinished": "1 of 2 epochs",
        "unscored": "not scored",
        "damaged": "expected JSON",
        "newer": "no recipe key",
        "weightless": "expected weights",
        "binary": "cannot be read",
    }
    assert set(reasons) == set(expected)
    assert {name: text in reasons[name] for name, text in expected.items()} == dict.fromkeys(expected, True)
    assert not [reason for reason in reasons.values() if "\n" in reason]


def test_the_command_writes_a_page_and_says_what_it_left_out(spoilt, tmp_path, capsys):
    assert command(spoilt / "*", "--out", tmp_path / "pages" / "compare.html") == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "pages" / "compare.html")
    assert err.count("left out: ") == 8
    with page_in_browser(tmp_path / "pages" / "compare.html") as page:
        titles = page.locator("h2").all_inner_texts()
        cells = page.locator("td").all_inner_texts()
    expected = ["Results", "What differs in their recipes", "Seeds", "Better, or lucky with these videos?"]
    assert titles == [*expected, "Learning", "Cost", "Classes", "Left out"]
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
    assert first["differs"] == {"model.name": "msf_r3d_18_fsam"}
    assert by_name["other"]["differs"] == {"model.name": "c3d"}
    assert first["epochs"] == 2
    assert document["pairs"][0]["n_videos"] == scores["n_videos"]
    assert document["skipped"] == {}


def test_no_run_at_all_is_refused(tmp_path, capsys):
    assert command(tmp_path / "none", tmp_path) == 2
    assert "expected folders of finished runs, found none" in capsys.readouterr().err


# By hand


def run_of(name, answers, seed=0, **recipe):
    """A run that was right (1) or wrong (0) on each of some videos, the first half of class a."""
    labels = ["a" if i < len(answers) / 2 else "b" for i in range(len(answers))]
    videos = tuple(
        ScoredVideo(f"/{name}/{label}/{i}.mp4", label, label if right else "c", 0.5)
        for i, (label, right) in enumerate(zip(labels, answers, strict=True))
    )
    per_class = {}
    for label in ("a", "b"):
        own = [right for right, other in zip(answers, labels, strict=True) if other == label]
        per_class[label] = {"n": len(own), "top1": sum(own) / len(own)}
    top1 = {"top1": sum(answers) / len(answers), "top5": 1.0}
    scores = EvalResult(
        ("a", "b", "c"), Views(), top1, top1, per_class, np.zeros((3, 3), int), len(answers), {}, (), videos
    )
    values = {"train.seed": seed, "optim.lr": 0.1} | recipe
    history = [{"epoch": 1, "val_top1": top1["top1"], "seconds": 2.0}]
    return Run(Path(name), name, values, history, scores, summarize("r3d_18", 3, width_mult=0.125))


def test_only_keys_that_differ_are_told():
    runs = [run_of("x", [1, 0]), run_of("y", [1, 0], 1), run_of("z", [1, 0], 1, **{"model.kwargs.num_splits": 3})]
    assert differing_keys(runs) == ["train.seed", "model.kwargs.num_splits"]
    assert differing_keys(runs[:1]) == []


def test_runs_that_differ_in_the_seed_are_a_group():
    runs = [
        run_of("x", [1, 1, 1, 1], 0),
        run_of("other", [1, 0, 1, 0], 0, **{"optim.lr": 0.2}),
        run_of("y", [1, 1, 0, 0], 1, **{"train.loggers": ["csv"]}),
        run_of("again", [1, 0, 1, 0], 0, **{"optim.lr": 0.2}),
    ]
    (group,) = seed_groups(runs)
    assert [run.name for run in group.runs] == ["x", "y"]
    mean, spread = group.mean("test_top1")
    assert (mean, spread) == (0.75, pytest.approx(0.25 * 2**0.5))
    assert group.mean("peak_memory_mib") == (None, None)


def test_duels_count_videos_that_one_has_right():
    better = run_of("better", [1] * 10 + [1] * 8 + [0] * 2)
    worse = run_of("worse", [1] * 10 + [0] * 8 + [1] * 2)
    like = run_of("like", [1] * 10 + [1] * 7 + [0] * 3)
    first, second = duels([better, worse, like])
    assert (first.n_videos, first.both, first.only_first, first.only_second) == (20, 10, 8, 2)
    assert first.p == pytest.approx(2 * 112 / 1024)  # two tests: Holm doubles the smaller
    assert first.reading == "no difference can be told: they disagree on 10 videos, 8 to 2"
    assert (second.only_first, second.only_second, second.p) == (1, 0, 1)
    (sure,) = duels([run_of("good", [1] * 20), run_of("bad", [0] * 20)])
    assert sure.reading == "good is better: it has 20 of the 20 videos right that they disagree on"
    assert duels([better]) == []


def test_duels_need_videos_in_common():
    one, other = run_of("one", [1, 0]), run_of("other", [1, 0, 1, 1])
    assert [duel.n_videos for duel in duels([one, other])] == [1]  # a/0, as the label's halves are not the same
    older = replace(one, scores=replace(one.scores, videos=()))
    assert duels([older, other]) == []
    assert duels([replace(one, scores=None), other]) == []


def test_classes_with_the_largest_difference_come_first():
    rows = class_rows([run_of("x", [1, 1, 1, 0]), run_of("y", [1, 1, 0, 0])])
    assert rows == [("b", 2, [0.5, 0.0]), ("a", 2, [1.0, 1.0])]


def test_a_comparison_of_one_run_stands(runs, tmp_path):
    comparison = compare([str(runs / "first")])
    assert comparison.to_dict()["pairs"] == []
    with pytest.raises(UserError, match="no folder"):
        compare([])
