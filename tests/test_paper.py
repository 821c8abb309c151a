"""The paper's tables and presets as data, and the runs that are planned from them."""

import os
import tomllib
from pathlib import Path

import pytest
from conftest import SHARED

from msfnet.experiments.paper import Paper, make_plan, preset_names, read_paper, read_preset
from msfnet.experiments.paper_results import read_results
from msfnet.recipe import load_recipe

PAPER_TEXT = SHARED.parent / "paper" / "msf-net.txt"
TWO_ROWS = """
table = [{ number = "3", title = "Attention", num_classes = 101 }]
row = [
    { table = "3", label = "SE-Net", model = "msf_r3d_18_se", printed = { params = "21.88", top1 = "50.1" } },
    { table = "3", label = "FSAM", model = "msf_r3d_18_fsam", printed = { params = "21.88", top1 = "52.8" } },
    { table = "3", label = "Someone's", source = "Someone (2020)", printed = { top1 = "40.0" } },
]
claim = [{ text = "FSAM is better", row = "3 FSAM", baselines = ["3 SE-Net"] }]
"""


def plan_of(preset, requested=(), recipe=None, overrides=(), n_seeds=1):
    return make_plan(read_paper(), read_preset(preset), requested, recipe, overrides, n_seeds)


# Tables


def test_networks_have_the_parameters_that_the_paper_prints():
    """Within 0.012 M, but for rows whose remark explains the difference."""
    results = [row for preset in ("ucf101", "kinetics400") for row in read_results(plan_of(preset), Path("none")).rows]
    assert [row.row for row in results if row.row.table != "4"] == [row for row in read_paper().row if row.table != "4"]
    different = set()
    for result in results:
        if not result.full_size:
            continue
        difference = abs(result.full_size.params / 1e6 - float(result.row.printed.params))
        if difference > 0.012:
            different.add(result.row.key)
            assert result.row.remark
        assert difference < (0.05 if result.row.table != "4" else 1.3), result.row.key
    assert different == {"1 (b)", "4 C3D", "4 MSF-R3D", "4 MSF-R3D+FSAM", "5 R3D(baseline)", "5 R(2+1)D"}


def test_numbers_are_those_in_the_text_of_the_paper():
    """Row by row, where the text is available beside the clone."""
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('baselines = ["3 SE-Net"]', 'baselines = ["3 Someone\'s"]', 'no row with a model has the name "3 Someone\'s"'),
        ('label = "FSAM"', 'label = "SE-Net"', "duplicate row 3 SE-Net"),
        ('table = "3", label = "FSAM"', 'table = "9", label = "FSAM"', "row 9 FSAM is in no table"),
        ('source = "Someone (2020)", ', "", "3, Someone's: expected either a model or a source"),
        ("printed =", "print =", "Extra inputs are not permitted"),
    ],
)
def test_inconsistent_tables_are_refused(old, new, message):
    assert old in TWO_ROWS
    with pytest.raises(ValueError, match=message):
        Paper.model_validate(tomllib.loads(TWO_ROWS.replace(old, new)))


# Plans


def test_rows_with_the_same_network_share_runs():
    plan = plan_of("ucf101-18-small", n_seeds=3)
    assert len(plan.rows) == 23
    assert len(plan.networks) == 16
    names = [run.name for run in plan.runs()]
    assert len(names) == len(set(names)) == 48
    assert names[:2] == ["msf_r3d_18_a-seed0", "msf_r3d_18-seed0"]
    assert names[16] == "msf_r3d_18_a-seed1"
    assert "msf_r3d_18_num_splits=3-seed2" in names
    recipe = plan.runs()[-1].recipe
    assert (recipe.train.seed, recipe.model.width_mult, recipe.clip.crop_size) == (2, 0.25, 56)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_recipes_for_all_of_its_rows(name):
    plan = plan_of(name)
    assert {row.table for row in plan.rows} == set(plan.preset.tables)
    assert len(plan.claims) == (2 if name == "kinetics400" else 8)
    for run in plan.runs():
        assert run.recipe.optim.name == "adam"
        assert run.recipe.clip.num_frames == (16 if "c3d" in run.name and name != "ucf101-18-small" else 8)


def test_another_recipe_keeps_the_input_size_of_the_preset():
    """It has a name of its own, and `recipe_overrides` of the preset do not apply."""
    plan = plan_of("ucf101-18-small", ["5", "1"], "best", ["train.epochs=3"], 2)
    assert plan.name == "ucf101-18-small-best"
    assert [table.number for table in plan.tables] == ["1", "5"]
    rows = {"1 (b)", "5 MSF-R3D", "5 MSF-R3D+FSAM", "5 MSF-C3D+FSAM", "5 R3D(baseline)"}
    assert {claim.row for claim in plan.claims} == rows
    recipe = plan.recipe_of(plan.networks[0])
    best = load_recipe("best")
    assert (recipe.train.epochs, recipe.clip.crop_size) == (3, 56)
    assert (recipe.optim, recipe.clip.input) == (best.optim, "rgb_diff")


def test_rows_are_selected_by_name():
    plan = plan_of("ucf101", ["2", "5 R3D(baseline)", "5 MSF-R3D"])
    assert [row.key for row in plan.rows] == [*(f"2 S = {n}" for n in "3456"), "5 R3D(baseline)", "5 MSF-R3D"]
    assert [table.number for table in plan.tables] == ["2", "5"]
    assert [claim.text for claim in plan.claims] == ["MSF blocks are better than R3D's", "S = 4 is the best"]
