"""Reproductions: records of runs, the results page, and real runs of two rows through Ray."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY, kill_once_there, page_in_browser
from test_cli import run
from test_paper import TWO_ROWS, plan_of

from msfnet.cli import main
from msfnet.data.annotations.readers import read_dataset
from msfnet.data.video_files import VideoFiles
from msfnet.experiments.cluster import usable_cpus
from msfnet.experiments.paper import Network, Paper, make_plan, read_preset
from msfnet.experiments.paper_page import to_markdown, write_results
from msfnet.experiments.paper_results import correct_predictions, read_results, video_groups
from msfnet.experiments.records import RunRecord, read_record, read_records, to_json
from msfnet.experiments.reproduce import with_test_split
from msfnet.experiments.worker import Resources, train_run
from msfnet.models.registry import summarize
from msfnet.recipe import Recipe, load_recipe
from msfnet.run_folder import CHECKPOINT
from msfnet.types import UserError, VideoItem

PUBLISHED = Path(__file__).parent.parent / "benchmarks"
VERDICTS = ("supported", "contradicted", "inconclusive")


def two_rows(n_seeds=1, overrides=TINY):
    paper = Paper.model_validate(tomllib.loads(TWO_ROWS))
    return make_plan(paper, read_preset("ucf101"), [], None, overrides, n_seeds)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["6"], "this preset has no table or row '6'; there are: 1, 1 (a), "),
        (["5 MSFR3D"], "this preset has no table or row '5 MSFR3D'; did you mean 5 MSF-R3D"),
        (["5 SR3D", "--preset", "kinetics400"], "this preset has no table or row '5 SR3D'; did you mean 4 MSF-R3D or "),
        (["--preset", "ucf-101"], "no preset 'ucf-101'; did you mean ucf101"),
        (["--seeds", "0"], "--seeds of 1 or more, found 0"),
        (["--set", "optim.l=1"], "no recipe key 'optim.l'; did you mean optim.lr"),
        ([], "expected --data"),
    ],
)
def test_invalid_commands_are_refused_in_one_line(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words, "--out", str(tmp_path / "out"), "--runs-dir", str(tmp_path / "runs")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_all_runs_have_the_same_test_split(video_folder):
    """It is drawn if there is none; validation videos are the test split if there is no other, as in Kinetics."""
    plan, data = two_rows(), read_dataset(video_folder)
    drawn = with_test_split(data, plan)
    assert {item.split for item in drawn.items} == {"train", "test"}
    as_kinetics = [VideoItem(item.path, item.label, "val" if item.split == "test" else "train") for item in drawn.items]
    tested = with_test_split(VideoFiles(tuple(as_kinetics), "manifest"), plan)
    assert tested.in_split("test") == [VideoItem(i.path, i.label, "test") for i in as_kinetics if i.split == "val"]
    with pytest.raises(UserError, match="expected test videos in manifest, found none"):
        with_test_split(VideoFiles(tuple(i for i in as_kinetics if i.split == "train"), "manifest"), plan)


# Records by hand


def record_of(name, correct, recipe=None):
    """A run that predicts each of some videos correctly (1) or not (0)."""
    videos = {f"a/{number}.mp4": bool(flag) for number, flag in enumerate(correct)}
    history = [{"epoch": 1.0, "train_loss": 2.5, "train_top1": 0.25, "seconds": 90.0}]
    n_videos = {"train": 4, "val": 0, "test": len(correct)}
    return RunRecord(name, recipe or Recipe(), {"commit": "c0ffee", "gpus": []}, 3, n_videos, history, videos)


def test_runs_with_other_test_videos_are_refused():
    network, other = Network("r3d_18", (), ()), Network("c3d", (), ())
    correct = correct_predictions({network: [record_of("x", [1, 0, 1, 1])], other: []})
    assert list(correct) == [network]
    assert correct[network].tolist() == [[True, False, True, True]]
    with pytest.raises(UserError, match="expected runs with the same test videos, found other videos in y than in x"):
        correct_predictions({network: [record_of("x", [1, 0])], other: [record_of("y", [1, 0, 1])]})


def test_videos_are_grouped_by_file_name():
    names = ["a/v_a_g02_c01.avi", "a/v_a_g01_c01.avi", "a/v_a_g02_c02.avi", "b/v_b_g01_c01.avi", "b/other.avi"]
    record = replace(record_of("x", []), correct=dict.fromkeys(names, True))
    groups = video_groups({Network("c3d", (), ()): (), Network("r3d_18", (), ()): (record,)})
    assert groups.tolist() == [1, 0, 1, 3, 2]
    assert len(video_groups({})) == 0


def test_records_survive_a_round_trip_through_json(tmp_path):
    recipe = load_recipe("paper", ["model.kwargs.num_splits=3", "clip.crop_size=56"])
    records = [record_of("x", [1, 0, 1, 1], recipe), record_of("y", [0, 0, 0, 1])]
    file = tmp_path / "results-x.runs.json"
    file.write_text(to_json(records), encoding="utf-8")
    assert read_records(file) == records
    assert records[0].top1 == 75
    assert records[0].minutes == 1.5
    assert (records[0].model.input, records[0].model.name) == ((3, 8, 56, 56), "msf_r3d_18_fsam")
    file.write_text(to_json([]), encoding="utf-8")
    assert read_records(file) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"videos": [], "runs": [{"name": "x"}]}', '{"runs": 1}', "3", "{"])
def test_other_files_are_refused_in_one_line(text, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"expected the runs that msfnet reproduce wrote in .*other\.json") as error:
        read_records(file)
    assert "\n" not in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a file results-PRESET\.runs\.json, found none at .*none\.json"):
        read_records(tmp_path / "none.json")


def test_missing_predictions_are_refused(tmp_path):
    file = tmp_path / "cut.json"
    file.write_text(to_json([record_of("x", [1, 0, 1, 1])]).replace('"1011"', '"101"'))
    with pytest.raises(UserError, match="found something else"):
        read_records(file)


# Real runs


def train_here(plan, data, n_runs, folder):
    """Train the first runs of a plan as a process of the cluster does, but in this process."""
    import torch

    threads, environment = torch.get_num_threads(), dict(os.environ)
    split = with_test_split(read_dataset(data), plan)
    statuses = [
        train_run(split, run, folder, Path.cwd(), Resources(1, 0), score_test=True) for run in plan.runs()[:n_runs]
    ]
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)
    assert [status.error for status in statuses] == [None] * n_runs


@pytest.fixture(scope="module")
def half_done(video_folder, tmp_path_factory):
    """A folder with the run of the first of two rows."""
    folder = tmp_path_factory.mktemp("reproduced")
    train_here(two_rows(), video_folder, 1, folder)
    return folder


def test_page_shows_the_runs_that_have_finished(half_done, tmp_path):
    results = read_results(two_rows(), half_done)
    json_file, _, markdown, page_file = write_results(results, tmp_path / "out")
    se, fsam, quoted = json.loads(json_file.read_text("utf-8"))
    scores = json.loads((half_done / "msf_r3d_18_se-seed0" / "scores.json").read_text())
    expected = {"table": "3", "row": "SE-Net", "model": "msf_r3d_18_se", "paper_top1": 50.1, "n_seeds": 1}
    assert {key: se[key] for key in expected} == expected
    assert se["params"] == summarize("msf_r3d_18_se").params
    assert se["trained_params"] < se["params"] / 50
    assert se["top1_mean"] == pytest.approx(100 * scores["video"]["top1"])
    assert se["top1_std"] is None
    assert (fsam["n_seeds"], fsam["top1_mean"], quoted["params"]) == (0, None, None)
    text = markdown.read_text("utf-8")
    assert "| FSAM is better | not run | SE-Net: not run |" in text
    assert "| Someone's | – | – | – | – | 40.0 | – | – | – | quoted from Someone (2020) |" in text
    assert "| train.epochs | 40 | 2 |" in text
    assert "\n## Unfinished runs\n\nmsf_r3d_18_fsam-seed0\n" in text
    with page_in_browser(page_file) as page:
        titles = page.locator("h2").all_inner_texts()
    assert titles == [
        *("Setup", "Claims of the paper", "Differences between networks", "Table 3: Attention"),
        *("Top-1 in the paper and here", "Training curves", "Differences from the paper's setup", "Convergence"),
        "Unfinished runs",
    ]


def test_runs_of_another_machine_are_merged(half_done, tmp_path):
    """Their file gives the same page as their folder, and does not contain the path of that folder."""
    here = read_results(two_rows(), half_done)
    _, runs_file, page, _ = write_results(here, tmp_path)
    text = page.read_text("utf-8")
    assert str(half_done) not in runs_file.read_text("utf-8")
    merged = read_results(two_rows(2), tmp_path / "none", [runs_file])
    assert merged.finished == here.finished == [read_record(half_done / "msf_r3d_18_se-seed0")]
    assert "finished runs: 1 of 4" in write_results(merged, tmp_path / "again")[2].read_text("utf-8")
    same = write_results(read_results(two_rows(), tmp_path / "none", [runs_file]), tmp_path / "same")
    assert same[2].read_text("utf-8") == text
    with pytest.raises(UserError, match=r"runs.json has the run msf_r3d_18_se-seed0 with other values of optim.lr; "):
        read_results(two_rows(overrides=[*TINY, "optim.lr=0.2"]), tmp_path / "none", [runs_file])


@pytest.mark.parametrize("name", ["ucf101-18-small", "ucf101-18-small-best"])
def test_published_pages_are_those_of_the_published_runs(name, tmp_path, capsys):
    published = {kind: PUBLISHED / f"results-{name}.{kind}" for kind in ("json", "runs.json", "md")}
    text = published["md"].read_text("utf-8")
    words = shlex.split(re.search(r"^\| command \| msfnet (.+) \|$", text, re.MULTILINE)[1])
    report_only = (
        "--report-only",
        "--merge-runs",
        published["runs.json"],
        "--runs-dir",
        tmp_path / "none",
        "--out",
        tmp_path,
    )
    assert run(capsys, *words, *report_only)[0] == 0
    assert (tmp_path / published["md"].name).read_text("utf-8") == text
    for kind in ("json", "runs.json"):
        assert json.loads((tmp_path / published[kind].name).read_text("utf-8")) == json.loads(
            published[kind].read_text("utf-8")
        )


def test_page_without_any_finished_run(tmp_path):
    results = read_results(two_rows(2), tmp_path / "none")
    text = write_results(results, tmp_path)[2].read_text("utf-8")
    assert "finished runs: 0 of 4" in text
    assert results.to_dict()["missing"] == [f"msf_r3d_18_{n}-seed{seed}" for seed in (0, 1) for n in ("se", "fsam")]


def test_runs_with_other_settings_are_refused(half_done):
    with pytest.raises(UserError, match=r"has the run msf_r3d_18_se-seed0 with other values of optim.lr; use"):
        read_results(two_rows(overrides=[*TINY, "optim.lr=0.2"]), half_done)


def test_markdown_escapes_cells_and_leaves_out_plots():
    from matplotlib.figure import Figure

    from msfnet.report import Section, Table

    sections = [
        Section("S", table=Table(("x", "y"), [("1|2", "3")])),
        Section("Empty"),
        Section("P", "A", figure=Figure()),
    ]
    text = to_markdown("T", {"a": "1"}, sections)
    assert text == "# T\n\na: 1\n\n## S\n\n| x | y |\n|---|---|\n| 1\\|2 | 3 |\n"


def printed_json(arguments, capsys):
    """Run a command that has nothing to train."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_killed_reproduction_is_resumed(video_folder, tmp_path, capsys, ray):
    """Table 3 with two finished rows: killed with the third half done, reported, then trained to its end."""
    runs, out, overrides = tmp_path / "runs", tmp_path / "out", [*TINY, "train.epochs=3"]
    train_here(plan_of("ucf101-18-small", ["3"], overrides=overrides), video_folder, 2, runs)
    report = ["reproduce", "3", "--preset", "ucf101-18-small", "--seeds", "1", "--json", "--out", str(out)]
    report += [word for item in overrides for word in ("--set", item)]
    train = [*report, "--data", str(video_folder), "--cpus-per-trial", str(usable_cpus())]
    training = [sys.executable, "-m", "msfnet", *train, "--runs-dir", str(runs)]
    third = runs / "msf_r3d_18_nst-seed0"
    kill_once_there(training, third / CHECKPOINT)

    meanwhile = printed_json([*report, "--runs-dir", str(runs), "--report-only"], capsys)
    assert [row["n_seeds"] for row in meanwhile["rows"]] == [1, 1, 0, 0]
    assert meanwhile["claims"][0]["verdict"] == "not run"

    again = subprocess.run(training, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert [row["n_seeds"] for row in document["rows"]] == [1, 1, 1, 1]
    assert document["claims"][0]["verdict"] in VERDICTS
    assert document["missing"] == []
    assert json.loads((out / "results-ucf101-18-small.json").read_text("utf-8")) == document["rows"]
    elsewhere = [
        *train,
        "--runs-dir",
        str(tmp_path / "other"),
        "--merge-runs",
        str(out / "results-ucf101-18-small.runs.json"),
    ]
    assert printed_json(elsewhere, capsys) == document
    assert not (tmp_path / "other" / third.name).exists()
    log = (third / "log.txt").read_text()
    assert log.count("resuming from the last checkpoint") == 1
    assert log.count("epoch   1/3") == 1
