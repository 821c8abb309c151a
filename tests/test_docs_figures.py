"""The page about the method: its pictures, and every number that its text takes from them."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from msfnet.layers.fsam import TOP16, FrequencyPool
from msfnet.layers.msl import MSL
from msfnet.models.registry import summarize

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIGURES = runpy.run_path(str(DOCS / "figures.py"))  # from here on `drawing` can be imported

from drawing import diagrams, facts  # noqa: E402

PAGE = (DOCS / "method.md").read_text(encoding="utf-8")
IMAGES = re.findall(r"!\[([^\]]*)\]\(assets/([^)]+)\)", PAGE)
WORDS = " ".join(PAGE.split())


def texts(svg):
    """What is written in a picture: letters are outlines there, each text with itself as a comment before it."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


# Pictures


def test_pictures_of_the_page_are_those_that_are_drawn():
    assert sorted(name for _, name in IMAGES) == sorted(FIGURES["PICTURES"])
    for alt, name in IMAGES:
        assert len(alt) > 100, f"{name} is not described"
        root = ElementTree.fromstring((DOCS / "assets" / name).read_bytes())
        assert root.get("width") == "525.6pt", f"{name} is not 700 px wide"


@pytest.mark.slow
def test_pictures_are_up_to_date():
    """Their texts, which all numbers are among: the outlines of letters are another version's of matplotlib."""
    for name in FIGURES["PICTURES"]:
        shipped = (DOCS / "assets" / name).read_bytes()
        assert texts(FIGURES["drawn"](name)) == texts(shipped), f"{name} is out of date: python docs/figures.py"
        assert len(texts(shipped)) > 10


def test_a_picture_is_written_and_the_same_each_time(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr("sys.argv", ["figures.py", "method-sam.svg", "--out", str(tmp_path / folder)])
        FIGURES["main"]()
    written = [(tmp_path / folder / "method-sam.svg").read_bytes() for folder in ("a", "b")]
    assert written[0] == written[1]
    assert texts(written[0]) == texts((DOCS / "assets" / "method-sam.svg").read_bytes())


# What they are drawn from


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (65, 4), (63, 5), (8, 2), (9, 4)])
def test_lanes_are_what_msl_runs(channels, groups):
    msl, ran = MSL(channels, groups), []
    for branch in msl.branches:
        branch.register_forward_hook(lambda m, i, o: ran.append((i[0].shape[1], o.shape[1])))
    with torch.no_grad():
        msl(torch.zeros(1, channels, 1, 2, 2))
    first, *rest = facts.lanes(msl)
    assert [(lane.width, lane.width) for lane in rest] == ran
    assert (first.own, first.carried, first.kept) == (msl.sizes[0], 0, msl.sizes[0])
    assert sum(lane.own for lane in (first, *rest)) == sum(lane.kept for lane in (first, *rest)) == channels


def test_paths_of_the_block_are_as_drawn():
    block = facts.block_of("msf_r3d_18")
    found = {}
    for name in ("conv1", "conv2"):
        getattr(block, name).register_forward_hook(lambda m, i, o, name=name: found.update({name: o.clone()}))
    x = torch.randn(1, 64, 3, 4, 4, dtype=next(block.parameters()).dtype)
    with torch.no_grad():
        assert torch.allclose(block.eval()(x), torch.relu(found["conv1"] + found["conv2"] + x), atol=1e-6)


def test_stages_as_drawn_add_up():
    for name in ("msf_r3d_18_fsam", "msf_c3d_fsam"):
        columns = diagrams.columns(name)
        assert sum(column.params for column in columns) == summarize(name).params
        assert sum(column.macs for column in columns) == summarize(name).macs
        assert sum(column.runs.count("FSAM") for column in columns) == 2


# Reach


def test_msl_sees_1_3_5_7_frames_and_the_blocks_5_and_up_to_9():
    assert [reach.frames for reach in facts.msl_reaches()] == [1, 3, 5, 7]
    assert [reach.frames for reach in facts.block_reaches("r3d_18")] == [5]
    assert [reach.frames for reach in facts.block_reaches("msf_r3d_18")] == [3, 5, 7, 9]
    triangle = [[1, 0, 0, 0], [0, 3, 0, 0], [0, 5, 3, 0], [0, 7, 5, 3]]
    assert [reach.by_input for reach in facts.msl_reaches()] == triangle


def test_outermost_frames_have_little_of_the_gradient():
    for reach in (facts.msl_reaches()[3], *facts.block_reaches("msf_r3d_18")[2:]):
        share = reach.shares.sum(0)
        outermost = share[share > 0][0], share[share > 0][-1]
        assert all(0.005 < float(end) < 0.025 for end in outermost)


@pytest.mark.parametrize("dim", [3, 4])
def test_rows_and_columns_grow_alike(dim):
    torch.manual_seed(0)
    msl, shape = MSL(16, 4).eval(), [1, 16, 3, 3, 3]
    shape[dim] = 15
    x = torch.randn(shape, requires_grad=True)
    middle = [slice(None), slice(None), 1, 1, 1]
    middle[dim] = 7
    y, seen = msl(x)[tuple(middle)], []
    for part in facts.slices([lane.kept for lane in facts.lanes(msl)]):
        (grad,) = torch.autograd.grad(y[:, part].sum(), x, retain_graph=True)
        seen.append(int((grad.abs().transpose(1, dim).flatten(2).sum((0, 2)) > 0).sum()))
    assert seen == [1, 3, 5, 7]


@pytest.mark.slow
def test_depth():
    r3d, msf = facts.depth_reaches("r3d_18"), facts.depth_reaches("msf_r3d_18")
    seen = [frames for frames, _ in r3d.values()]
    assert f"{', '.join(map(str, seen[:-1]))} and {seen[-1]}" in WORDS
    assert all(fewest == most for fewest, most in r3d.values())
    assert f"every channel of R3D-18 sees {seen[1]} frames" in WORDS
    assert seen[0] < 8 < seen[1]
    (first, last), (fewest, most) = msf["layer1.0"], msf["layer4.1"]
    assert f"bars from {first} to {last} after the first block up to {fewest} to {most} after the last" in WORDS


def test_groups():
    assert [facts.group_frames(groups) for groups in (2, 4)] == [[1, 3], [1, 3, 5, 7]]
    assert facts.group_frames(5)[-1] == 9
    weights = [facts.saving(groups) for groups in range(2, 7)]
    assert max(weights) == facts.saving(4)
    *most, last = (f"{100 * share:.0f}" for share in weights)
    assert f"({', '.join(most)} and {last} %)" in WORDS
    assert f"For S = 4 they have {100 * facts.saving(4):.0f} % of the weights" in WORDS


def test_sizes_in_the_text():
    r3d, msf, fsam = (summarize(name) for name in ("r3d_18", "msf_r3d_18", "msf_r3d_18_fsam"))
    params, macs = (100 * (1 - a / b) for a, b in ((msf.params, r3d.params), (msf.macs, r3d.macs)))
    assert f"MSF takes {params:.0f} % of R3D's parameters away and {macs:.0f} % of its multiply-adds" in WORDS
    assert f"FSAM adds {(fsam.params - msf.params) / 1e6:.3f} M parameters" in WORDS
    assert fsam.macs / msf.macs < 1.001
    for name in ("r3d_18", "msf_r3d_18_a", "msf_r3d_18", "msf_r3d_18_c", "msf_r3d_18_d"):
        assert f"{summarize(name).params / 1e6:.3f} M" in WORDS


# FAM


def test_se_is_told_the_same_where_fam_is_not():
    found = facts.responses()
    assert all(response.se == pytest.approx(1, abs=1e-5) for response in found.values())
    seen = {name for name, response in found.items() if response.fam_difference > 1}
    assert seen == {
        "upright stripes, wide",
        "upright stripes, narrow",
        "lying stripes, narrow",
        "checks, wide",
        "brighter on the left",
        "brighter on the right",
    }
    at = {name: TOP16[int(response.fam[1:].abs().argmax()) + 1] for name, response in found.items() if name in seen}
    assert at["upright stripes, wide"] == (0, 2)
    assert at["upright stripes, narrow"] == (0, 6)
    assert at["lying stripes, narrow"] == (6, 0)
    assert at["checks, wide"] == (2, 2)
    left, right = (found[f"brighter on the {side}"].fam for side in ("left", "right"))
    assert torch.allclose(left[1:], -right[1:], atol=1e-5)


def test_fam_is_blind_to_what_is_gone_once_time_is_averaged_and_sam_is_not():
    found = facts.responses()
    for name in ("flicker", "moving stripes", "lying stripes, wide"):
        assert found[name].fam_difference < 1e-4
    assert 0.5 < found["checks, fine"].fam_difference < 1
    assert int((found["checks, fine"].fam[1:].abs() > 0.05).sum()) == 6
    changing = {name for name, response in found.items() if response.sam_time > 0.1}
    assert changing == {"flicker", "moving stripes"}


def test_tuning():
    pairs, cycles = tuple((0, h) for h in range(7)), torch.linspace(0, 7, 141).tolist()
    still = facts.tuning(pairs, cycles, over_time=False)
    assert float(still[0, 0]) == pytest.approx(1, abs=1e-4)
    assert still[:, -1].max() < 1e-5
    peaks = [cycles[int(answer.argmax())] for answer in still[1:]]
    assert peaks == sorted(peaks)
    assert f"from {peaks[0]:.1f} stripes for (0, 1) to {peaks[-1]:.1f} for (0, 6)" in WORDS
    assert int(still[:, cycles.index(4.25)].argmax()) == 5  # finer than (0, 6), and taken for coarser
    assert facts.tuning(pairs, cycles, over_time=True)[1:].max() < 1e-5


def test_independent_frequencies_of_small_maps():
    pool = FrequencyPool(16)
    ranks = [int(torch.linalg.matrix_rank(pool.weight(size, size).flatten(1))) for size in (14, 7, 4, 3, 2, 1)]
    assert f"are independent: {', '.join(map(str, ranks))}." in WORDS
    assert f"a 4×4 map is still asked {ranks[2]} independent questions, a 3×3 map {ranks[3]}." in WORDS


# SAM


def test_sam_looks_at_seven_and_meets_fewer():
    assert facts.sam_extent() == (7, 7, 7)
    places = [shape for name in ("msf_r3d_18_fsam", "msf_c3d_fsam") for shape in facts.fsam_places(name).values()]
    assert places == [(256, 2, 14, 14), (512, 1, 7, 7), (256, 8, 28, 28), (512, 2, 7, 7)]
    met = [float((facts.sam_taps(*size) > 0).float().mean()) for _, *size in places]
    assert met == pytest.approx([3 / 7, 1 / 7, 1, 3 / 7])
    assert f"{100 * (1 - met[1]):.0f} % of its weights never meet anything" in WORDS
    assert facts.sam_taps(1, 7, 7)[3, 3, 3] == pytest.approx(1, abs=1e-4)  # the middle tap meets every value
