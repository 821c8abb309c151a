"""The paper's tables as data, the arithmetic of its claims by hand, and real runs of two rows through the engine."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, TINY, kill_once_there, page_in_browser
from test_cli import run

from msfnet.cli import main
from msfnet.data.annotations.readers import Listing, read_dataset
from msfnet.experiments.claims import Difference, Tried, difference_of, try_claims
from msfnet.experiments.cluster import Share, perform, usable_cpus
from msfnet.experiments.paper import Claim, Network, Paper, make_plan, read_paper, read_scale, scale_names
from msfnet.experiments.paper_page import to_markdown, write_results
from msfnet.experiments.paper_results import (
    Record,
    groups_of,
    read_record,
    read_records,
    read_results,
    right_answers,
    to_text,
)
from msfnet.experiments.reproduce import with_test_videos
from msfnet.models.registry import summarize
from msfnet.recipe import Recipe, load_recipe
from msfnet.run_folder import CHECKPOINT
from msfnet.types import UserError, VideoItem

PUBLISHED = Path(__file__).parent.parent / "benchmarks"
PAPER_TEXT = SHARED.parent / "paper" / "msf-net.txt"
TWO_ROWS = """
table = [{ number = "3", title = "Attention", classes = 101 }]
row = [
    { table = "3", label = "SE-Net", model = "msf_r3d_18_se", printed = { params = "21.88", top1 = "50.1" } },
    { table = "3", label = "FSAM", model = "msf_r3d_18_fsam", printed = { params = "21.88", top1 = "52.8" } },
    { table = "3", label = "Someone's", source = "Someone (2020)", printed = { top1 = "40.0" } },
]
claim = [{ text = "FSAM is better", better = "3 FSAM", than = ["3 SE-Net"] }]
"""


def quiet(line):
    pass


def two_rows(n_seeds=1, sets=TINY):
    return make_plan(Paper.model_validate(tomllib.loads(TWO_ROWS)), read_scale("ucf101"), [], None, sets, n_seeds)


# The tables


def test_every_network_has_the_parameters_that_the_paper_prints():
    """Within 0.012 M, but for rows whose remark says what is odd, and by no more than a misprint or other classes."""
    scale = [read_scale("ucf101"), read_scale("kinetics400")]
    results = [
        row for s in scale for row in read_results(make_plan(read_paper(), s, [], None, [], 1), Path("none")).rows
    ]
    assert [row.row for row in results if row.row.table != "4"] == [row for row in read_paper().row if row.table != "4"]
    odd = set()
    for result in results:
        if not result.counted:
            continue
        away = abs(result.counted.params / 1e6 - float(result.row.printed.params))
        if away > 0.012:
            odd.add(result.row.key)
            assert result.row.remark
        assert away < (0.05 if result.row.table != "4" else 1.3), result.row.key
    assert odd == {"1 (b)", "4 C3D", "4 MSF-R3D", "4 MSF-R3D+FSAM", "5 R3D(baseline)", "5 R(2+1)D"}


def test_numbers_stand_in_the_paper_as_printed():
    """Line by line of its text, where it lies beside the clone."""
    if not PAPER_TEXT.is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {PAPER_TEXT}")
    tables = PAPER_TEXT.read_text("utf-8").partition("4.3 Ablation")[2].split("\nTable ")[1:]
    lines = {text[0]: [line.replace("$", "") for line in text.splitlines()] for text in tables}
    for row in read_paper().row:
        (line,) = (line for line in lines[row.table] if line.split("\t")[0].split(" [")[0] == row.label)
        cells = [cell.strip("() ").removesuffix("M").strip() for cell in line.split("\t")[1:]]
        printed = [number for number in (row.printed.gmacs, row.printed.params, row.printed.top1) if number]
        assert printed == [cell for cell in cells if cell not in ("", "–")], row.key
    assert len(read_paper().row) == sum(line.count("\t") > 1 for text in lines.values() for line in text[1:]) - 5


def test_rows_of_one_network_share_their_runs():
    plan = make_plan(read_paper(), read_scale("ucf101-18-small"), [], None, [], 3)
    assert len(plan.rows) == 23
    assert len(plan.networks) == 16
    names = [run.name for run in plan.runs()]
    assert len(names) == len(set(names)) == 48
    assert names[:2] == ["msf_r3d_18_a-seed0", "msf_r3d_18-seed0"]
    assert names[16] == "msf_r3d_18_a-seed1"
    assert "msf_r3d_18_groups=3-seed2" in names
    recipe = plan.runs()[-1].recipe
    assert (recipe.train.seed, recipe.model.width_mult, recipe.clip.crop_size) == (2, 0.25, 56)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('than = ["3 SE-Net"]', 'than = ["3 Someone\'s"]', 'no row of ours is called "3 Someone\'s"'),
        ('label = "FSAM"', 'label = "SE-Net"', "row 3 SE-Net is there twice"),
        ('table = "3", label = "FSAM"', 'table = "9", label = "FSAM"', "row 9 FSAM is of no table"),
        ('source = "Someone (2020)", ', "", "3, Someone's: expected one of model and source"),
        ("printed =", "print =", "Extra inputs are not permitted"),
    ],
)
def test_wrong_tables_are_refused(old, new, message):
    assert old in TWO_ROWS
    with pytest.raises(ValueError, match=message):
        Paper.model_validate(tomllib.loads(TWO_ROWS.replace(old, new)))


# Plans


@pytest.mark.parametrize("name", scale_names())
def test_every_scale_makes_recipes_for_all_of_its_rows(name):
    plan = make_plan(read_paper(), read_scale(name), [], None, [], 1)
    assert {row.table for row in plan.rows} == set(plan.scale.tables)
    assert len(plan.claims) == (2 if name == "kinetics400" else 8)
    for planned in plan.runs():
        assert planned.recipe.optim.name == "adam"
        assert planned.recipe.clip.num_frames == (16 if "c3d" in planned.name and name != "ucf101-18-small" else 8)


def test_another_recipe_keeps_the_size_of_the_scale_and_has_a_name_of_its_own():
    plan = make_plan(read_paper(), read_scale("ucf101-18-small"), ["5", "1"], "best", ["train.epochs=3"], 2)
    assert plan.name == "ucf101-18-small-best"
    assert [table.number for table in plan.tables] == ["1", "5"]
    assert {claim.better for claim in plan.claims} == {"1 (b)", "5 MSF-R3D", *(f"5 MSF-{n}3D+FSAM" for n in "RC"), R3D}
    recipe = plan.recipe_of(plan.networks[0])
    best = load_recipe("best")
    assert (recipe.train.epochs, recipe.clip.crop_size) == (3, 56)
    assert (recipe.optim, recipe.clip.input) == (best.optim, "rgb_diff")


def test_rows_can_be_asked_for_by_name():
    plan = make_plan(read_paper(), read_scale("ucf101"), ["2", "5 R3D(baseline)", "5 MSF-R3D"], None, [], 1)
    assert [row.key for row in plan.rows] == [*(f"2 S = {n}" for n in "3456"), "5 R3D(baseline)", "5 MSF-R3D"]
    assert [table.number for table in plan.tables] == ["2", "5"]
    assert [claim.text for claim in plan.claims] == ["MSF blocks are better than R3D's", "S = 4 is the best"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["6"], "no table or row '6' at this scale; there are: 1, 1 (a), "),
        (["5 MSFR3D"], "no table or row '5 MSFR3D' at this scale; did you mean 5 MSF-R3D"),
        (["5 SR3D", "--preset", "kinetics400"], "no table or row '5 SR3D' at this scale; did you mean 4 MSF-R3D or "),
        (["--preset", "ucf-101"], "no scale 'ucf-101'; did you mean ucf101"),
        (["--seeds", "0"], "--seeds of 1 or more, found 0"),
        (["--set", "optim.l=1"], "no recipe key 'optim.l'; did you mean optim.lr"),
        ([], "expected --data, the videos to train on; --report-only does without"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_in_one_line(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words, "--out", str(tmp_path / "out"), "--runs-dir", str(tmp_path / "runs")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_all_runs_are_scored_on_one_split(video_folder):
    plan, data = two_rows(), read_dataset(video_folder)
    drawn = with_test_videos(data, plan)
    assert {item.split for item in drawn.items} == {"train", "test"}
    as_kinetics = [VideoItem(item.path, item.label, "val" if item.split == "test" else "train") for item in drawn.items]
    tested = with_test_videos(Listing(tuple(as_kinetics), "manifest"), plan)
    assert tested.in_split("test") == [VideoItem(i.path, i.label, "test") for i in as_kinetics if i.split == "val"]
    with pytest.raises(UserError, match="expected test videos, found none"):
        with_test_videos(Listing(tuple(i for i in as_kinetics if i.split == "train"), "manifest"), plan)


# Claims, by hand


def rights(*runs):
    return np.array([[letter == "x" for letter in run] for run in runs])


def apart(first, second):
    """Their difference, every video from a source of its own."""
    return difference_of(first, second, np.arange(first.shape[1]))


def test_a_difference_of_one_run_each_is_mcnemars():
    found = apart(rights("xxxxxxxxxx" + "x" * 8 + "--"), rights("xxxxxxxxxx" + "-" * 8 + "xx"))
    assert found.points == pytest.approx(30)
    assert found.p == pytest.approx(112 / 1024)
    assert (found.n_videos, found.n_groups, found.n_runs) == (20, 20, (1, 1))
    assert found.low < 30 < found.high


def test_runs_of_a_network_are_averaged_video_by_video():
    """Video by video the first has 2, 1, 0 and 1 more of its two runs right: 16 ways of signs, 4 with a sum of 4."""
    found = apart(rights("xxx-", "x-xx"), rights("--x-", "--x-"))
    assert found.points == pytest.approx(50)
    assert found.p == pytest.approx(2 / 8)
    assert apart(rights("xx--"), rights("xx--", "xx--")).p == 1


def test_the_interval_holds_the_luck_of_runs():
    videos = "xxxx----" * 25
    same = apart(rights(videos, videos), rights(videos, videos))
    assert (same.low, same.high) == (0, 0)
    lucky = apart(rights("x" * 200, "-" * 200), rights(videos, videos))
    assert lucky.points == 0
    assert lucky.low < -40
    assert lucky.high > 40


R3D = "5 R3D(baseline)"
CLAIM = Claim(text="a is best", better="1 a", than=("1 b", "1 c"))


@pytest.mark.parametrize(
    ("b", "c", "verdict"),
    [
        ("better", "better", "held"),
        ("better", "worse", "did not hold"),
        ("better", "alike", "not decided"),
        ("better", None, "not run"),
        ("worse", None, "did not hold"),
    ],
)
def test_verdicts(b, c, verdict):
    kinds = {"better": (5.0, 3.0, 7.0, 0.001), "worse": (-5.0, -7.0, -3.0, 0.001), "alike": (2.0, -1.0, 5.0, 0.2)}
    found = {
        key: kind and Difference(*kinds[kind][:3], 0.001, kinds[kind][3], 498, 125, (3, 3))
        for key, kind in (("1 b", b), ("1 c", c))
    }
    tried = Tried(CLAIM, {"1 b": 1.5, "1 c": 2.4}, found)
    assert tried.verdict == verdict
    assert ("no run yet to set against c" in tried.reading) == (c is None)


def test_a_difference_counts_if_test_and_interval_say_so():
    assert Difference(5, 1, 9, 0.001, 0.06, 498, 125, (3, 3)).sign == 0
    assert Difference(5, -1, 11, 0.001, 0.01, 498, 125, (3, 3)).sign == 0
    assert Difference(-5, -9, -1, 0.001, 0.01, 498, 125, (3, 3)).sign == -1


def test_claims_are_corrected_for_their_number():
    """Six videos to none have p = 1/32, and twice that where two are tried; what is not run is not counted."""
    best, other = rights("x" * 6 + "x" * 4), rights("-" * 6 + "x" * 4)
    printed, groups = {"1 a": 49.5, "1 b": 48.0, "1 c": 47.1}, np.arange(10)
    (tried,) = try_claims([CLAIM], printed, {"1 a": best, "1 b": other, "1 c": None}, groups)
    assert tried.differences["1 b"].p_corrected == pytest.approx(1 / 32)
    assert tried.printed == {"1 b": pytest.approx(1.5), "1 c": pytest.approx(2.4)}
    (tried,) = try_claims([CLAIM], printed, {"1 a": best, "1 b": other, "1 c": other}, groups)
    assert [d.p_corrected for d in tried.differences.values()] == [pytest.approx(1 / 16)] * 2
    assert tried.verdict == "not decided"
    assert json.loads(json.dumps(tried.to_dict()))["than"]["1 c"]["paper_points"] == pytest.approx(2.4)


def record_of(name, right, recipe=None):
    """A run that was right (1) or wrong (0) on each of some videos."""
    videos = {f"a/{number}.mp4": bool(answer) for number, answer in enumerate(right)}
    history = [{"epoch": 1.0, "train_loss": 2.5, "train_top1": 0.25, "seconds": 90.0}]
    n_videos = {"train": 4, "val": 0, "test": len(right)}
    return Record(name, recipe or Recipe(), {"commit": "c0ffee", "gpus": []}, 3, n_videos, history, videos)


def test_runs_on_other_videos_are_not_compared():
    network, other = Network("r3d_18", (), ()), Network("c3d", (), ())
    answers = right_answers({network: [record_of("x", [1, 0, 1, 1])], other: []})
    assert list(answers) == [network]
    assert answers[network].tolist() == [[True, False, True, True]]
    with pytest.raises(UserError, match="expected runs on the same test videos, found others in y than in x"):
        right_answers({network: [record_of("x", [1, 0])], other: [record_of("y", [1, 0, 1])]})


def test_videos_are_grouped_by_their_names():
    names = ["a/v_a_g02_c01.avi", "a/v_a_g01_c01.avi", "a/v_a_g02_c02.avi", "b/v_b_g01_c01.avi", "b/other.avi"]
    record = replace(record_of("x", []), right=dict.fromkeys(names, True))
    groups = groups_of({Network("c3d", (), ()): (), Network("r3d_18", (), ()): (record,)})
    assert groups.tolist() == [1, 0, 1, 3, 2]
    assert len(groups_of({})) == 0


# Runs of other machines


def test_records_come_back_from_their_file(tmp_path):
    recipe = load_recipe("paper", ["model.kwargs.num_splits=3", "clip.crop_size=56"])
    records = [record_of("x", [1, 0, 1, 1], recipe), record_of("y", [0, 0, 0, 1])]
    file = tmp_path / "results-x.runs.json"
    file.write_text(to_text(records), encoding="utf-8")
    assert read_records(file) == records
    assert records[0].top1 == 75
    assert records[0].minutes == 1.5
    assert (records[0].summary.input, records[0].summary.name) == ((3, 8, 56, 56), "msf_r3d_18_fsam")
    file.write_text(to_text([]), encoding="utf-8")
    assert read_records(file) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"videos": [], "runs": [{"name": "x"}]}', '{"runs": 1}', "3"])
def test_other_files_are_refused_in_one_line(text, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"expected runs that msfnet reproduce wrote in .*other\.json") as error:
        read_records(file)
    assert "\n" not in str(error.value)


def test_a_cut_line_of_answers_is_refused(tmp_path):
    file = tmp_path / "cut.json"
    file.write_text(to_text([record_of("x", [1, 0, 1, 1])]).replace('"1011"', '"101"'))
    with pytest.raises(UserError, match="found another file"):
        read_records(file)


# Real runs


def perform_here(plan, data, n_runs, folder):
    """The first runs of a plan, brought about as the engine's processes do, but in this one, which stays as it was."""
    import torch

    threads, environment = torch.get_num_threads(), dict(os.environ)
    split = with_test_videos(read_dataset(data), plan)
    outcomes = [perform(split, run, folder, Path.cwd(), Share(1, 0), score_test=True) for run in plan.runs()[:n_runs]]
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)
    assert [outcome.error for outcome in outcomes] == [None] * n_runs


@pytest.fixture(scope="module")
def half_done(video_folder, tmp_path_factory):
    """The first of two rows with its run, and the second without."""
    folder = tmp_path_factory.mktemp("reproduced")
    perform_here(two_rows(), video_folder, 1, folder)
    return folder


def test_the_page_is_written_from_whatever_is_finished(half_done, tmp_path):
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
    assert "| FSAM is better | not run | no run yet to set against SE-Net |" in text
    assert "| Someone's | – | – | – | – | 40.0 | – | – | – | quoted from Someone (2020) |" in text
    assert "| train.epochs | 40 | 2 |" in text
    assert "\n## Not finished\n\nmsf_r3d_18_fsam-seed0\n" in text
    with page_in_browser(page_file) as page:
        titles = page.locator("h2").all_inner_texts()
    assert titles[:4] == ["What was run", "Did the paper's claims hold?", "Differences", "Table 3: Attention"]
    assert titles[4:] == ["Paper and here", "Learning", "What was different", "Did they converge?", "Not finished"]


def test_runs_of_another_machine_are_joined(half_done, tmp_path):
    """Their file says what their folder would, and knows nothing of where that was."""
    here = read_results(two_rows(), half_done)
    _, runs_file, page, _ = write_results(here, tmp_path)
    text = page.read_text("utf-8")
    assert str(half_done) not in runs_file.read_text("utf-8")
    joined = read_results(two_rows(2), tmp_path / "none", [runs_file])
    assert joined.finished == here.finished == [read_record(half_done / "msf_r3d_18_se-seed0")]
    assert "finished runs: 1 of 4" in write_results(joined, tmp_path / "again")[2].read_text("utf-8")
    same = write_results(read_results(two_rows(), tmp_path / "none", [runs_file]), tmp_path / "same")
    assert same[2].read_text("utf-8") == text
    with pytest.raises(UserError, match=r"runs.json holds msf_r3d_18_se-seed0 with optim.lr = 0.0001, not 0.2; name"):
        read_results(two_rows(sets=[*TINY, "optim.lr=0.2"]), tmp_path / "none", [runs_file])


@pytest.mark.parametrize("name", ["ucf101-18-small", "ucf101-18-small-best"])
def test_published_results_are_what_their_command_says_of_the_published_runs(name, tmp_path, capsys):
    published = {kind: PUBLISHED / f"results-{name}.{kind}" for kind in ("json", "runs.json", "md")}
    text = published["md"].read_text("utf-8")
    words = shlex.split(re.search(r"^\| command \| msfnet (.+) \|$", text, re.MULTILINE)[1])
    joined = (
        "--report-only",
        "--merge-runs",
        published["runs.json"],
        "--runs-dir",
        tmp_path / "none",
        "--out",
        tmp_path,
    )
    assert run(capsys, *words, *joined)[0] == 0
    assert (tmp_path / published["md"].name).read_text("utf-8") == text
    rows, told = (json.loads((folder / published["json"].name).read_text("utf-8")) for folder in (tmp_path, PUBLISHED))
    assert [row["runs"] for row in rows] == [row["runs"] for row in told]
    for row, other in zip(rows, told, strict=True):
        assert row["top1"] == pytest.approx(other["top1"])
        assert (row["params"], row["macs"]) == (other["params"], other["macs"])


def test_a_page_needs_no_run_at_all(tmp_path):
    results = read_results(two_rows(2), tmp_path / "none")
    text = write_results(results, tmp_path)[2].read_text("utf-8")
    assert "finished runs: 0 of 4" in text
    assert results.to_dict()["missing"] == [f"msf_r3d_18_{n}-seed{seed}" for seed in (0, 1) for n in ("se", "fsam")]


def test_runs_of_other_settings_are_not_shown(half_done):
    with pytest.raises(UserError, match=r"holds msf_r3d_18_se-seed0 with optim.lr = 0.0001, not 0.2; name another, or"):
        read_results(two_rows(sets=[*TINY, "optim.lr=0.2"]), half_done)


def test_markdown_keeps_cells_apart():
    from matplotlib.figure import Figure

    from msfnet.report import Section, Table

    sections = [
        Section("S", table=Table(("x", "y"), [("1|2", "3")])),
        Section("Empty"),
        Section("P", "A", figure=Figure()),
    ]
    text = to_markdown("T", {"a": "1"}, sections)
    assert text == "# T\n\na: 1\n\n## S\n\n| x | y |\n|---|---|\n| 1\\|2 | 3 |\n"


def printed(arguments, capsys):
    """What a command that has nothing to train prints as JSON."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_killed_reproduction_goes_on_and_its_page_can_be_written_meanwhile(video_folder, tmp_path, capsys, ray):
    """Table 3 with two of its rows finished: killed with the third half done, then brought to its end."""
    runs, out, sets = tmp_path / "runs", tmp_path / "out", [*TINY, "train.epochs=3"]
    small = read_scale("ucf101-18-small")
    perform_here(make_plan(read_paper(), small, ["3"], None, sets, 1), video_folder, 2, runs)
    report = ["reproduce", "3", "--preset", small.name, "--seeds", "1", "--json", "--out", str(out)]
    report += [word for item in sets for word in ("--set", item)]
    train = [*report, "--data", str(video_folder), "--cpus-per-trial", str(usable_cpus())]
    training = [sys.executable, "-m", "msfnet", *train, "--runs-dir", str(runs)]
    third = runs / "msf_r3d_18_nst-seed0"
    kill_once_there(training, third / CHECKPOINT)

    meanwhile = printed([*report, "--runs-dir", str(runs), "--report-only"], capsys)
    assert [row["n_seeds"] for row in meanwhile["rows"]] == [1, 1, 0, 0]
    assert meanwhile["claims"][0]["verdict"] == "not run"

    again = subprocess.run(training, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert [row["n_seeds"] for row in document["rows"]] == [1, 1, 1, 1]
    assert document["claims"][0]["verdict"] in ("held", "did not hold", "not decided")
    assert document["missing"] == []
    assert json.loads((out / "results-ucf101-18-small.json").read_text("utf-8")) == document["rows"]
    joined = [
        *train,
        "--runs-dir",
        str(tmp_path / "other"),
        "--merge-runs",
        str(out / "results-ucf101-18-small.runs.json"),
    ]
    assert printed(joined, capsys) == document
    assert not (tmp_path / "other" / third.name).exists()
    log = (third / "log.txt").read_text()
    assert log.count("going on from the last checkpoint") == 1
    assert log.count("epoch   1/3") == 1
