"""The figures of docs/method.md: every number that they and the text around them state, computed by msfnet."""

import html
import importlib
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from msfnet.experiments.paper import read_paper
from msfnet.layers.attention import SE
from msfnet.layers.fsam import FAM, FSAM, SAM, TOP16, FrequencyPool, channel_summary
from msfnet.layers.msl import MSL
from msfnet.models.registry import count_parameters, create_model, summarize

DOCS = Path(__file__).resolve().parent.parent / "docs"
tables = SimpleNamespace(**runpy.run_path(str(DOCS / "tables.py")))  # puts docs/ on the import path
figures = importlib.import_module("figures")

PAGES = {page: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
METHOD = " ".join(PAGES[DOCS / "method.md"].split()).replace(" %", "%").replace(", and ", " and ")
R3D, MSF = "r3d_18", "msf_r3d_18"


def texts(svg):
    """The words and numbers in a figure, in the order of the file."""
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))]


# The files


def test_every_image_of_the_documentation_exists():
    linked = {
        page.parent / path for page, text in PAGES.items() for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    }
    assert {path for path in linked if not path.exists()} == set()
    shipped = set(DOCS.glob("assets/method-*.svg"))
    assert shipped == {path for path in linked if path.match("method-*.svg")}
    assert {DOCS / "assets" / name for name in figures.CHARTS} < shipped
    for path in shipped:
        ElementTree.parse(path)
        assert path.stat().st_size < 150_000


@pytest.mark.slow
def test_charts_are_up_to_date_and_the_same_each_time(tmp_path):
    """Two runs give the same bytes. The files in docs/assets may come from another version of matplotlib."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figures.receptive_fields.cache_clear()
        figures.receptive_field_by_depth.cache_clear()
        figures.write_charts(tmp_path / folder)
    for name in figures.CHARTS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert texts(tmp_path / "a" / name) == texts(DOCS / "assets" / name), f"{name}: run python docs/figures.py"


# The diagrams


def stages(name):
    """The output C×T×H×W, parameters (M) and GMACs of each stage, attention included, and of the layers after them."""
    with torch.device("meta"):
        model, shapes, rows, head = create_model(name).eval(), {}, [], np.zeros(2)
        for child, module in model.named_children():
            module.register_forward_hook(lambda m, i, output, child=child: shapes.update({child: output.shape[1:]}))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *model.input_shape))
    flops = {key.rpartition(".")[2]: sum(counts.values()) for key, counts in counter.get_flop_counts().items()}
    for child, module in model.named_children():
        size = np.array([count_parameters(module) / 1e6, flops.get(child, 0) / 2e9])
        if child.startswith(("stem", "layer", "stage")):
            rows.append((shapes[child], size))
        elif isinstance(module, FSAM):
            rows[-1][1][:] += size
        else:
            head += size
    return model.input_shape, rows, head


def test_diagram_of_the_networks():
    found = texts(DOCS / "assets" / "method-networks.svg")
    border = found.index("MSF-C3D with FSAM")
    for name, part in ((f"{MSF}_fsam", found[:border]), ("msf_c3d_fsam", found[border:])):
        input_shape, rows, head = stages(name)
        sizes = ["×".join(map(str, input_shape))]
        for shape, size in rows:
            sizes += ["×".join(map(str, shape)), *(f"{number:.2f}" for number in size)]
        sizes += [f"{number:.2f}" if number >= 0.005 else "< 0.01" for number in head]
        assert [text for text in part if re.fullmatch(r"(\d+×){3}\d+|(< )?\d+\.\d\d", text)] == sizes
        summary = summarize(name)
        assert f"{summary.params / 1e6:.3f} M parameters, {summary.macs / 1e9:.2f} GMACs" in part
        assert part.count("FSAM") == 2


def test_diagram_of_the_block():
    found, msl = texts(DOCS / "assets" / "method-block.svg"), MSL(128)
    widths = figures.output_widths(msl)
    assert f"output: {' + '.join(map(str, widths))} = 128 channels" in found
    assert [f"{branch[0].in_channels} → {branch[0].out_channels}" for branch in msl.branches] == [
        text for text in found if " → " in text and "64" not in text
    ]
    assert [text for text in found if re.fullmatch(r"\d frames?", text)] == [
        "1 frame",
        *(f"{n} frames" for n in (3, 5, 7)),
    ]


def test_paths_of_the_block_add_up():
    block, found = create_model(MSF, width_mult=0.125).eval().get_submodule("layer1.0"), {}
    for name in ("conv1", "conv2"):
        block.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: found.update({name: o.clone()}))
    x = torch.randn(1, 8, 3, 4, 4)
    with torch.no_grad():
        assert torch.allclose(block(x), torch.relu(found["conv1"] + found["conv2"] + x), atol=1e-5)


def test_diagram_of_the_placements():
    found = texts(DOCS / "assets" / "method-placements.svg")
    printed = {row.model: row.printed.top1 for row in read_paper().row if row.table == "1"}
    assert len(printed) == 4
    for name, top1 in {R3D: "", **printed}.items():
        summary = summarize(name)
        numbers = [f"{summary.params / 1e6:.3f}", f"{summary.macs / 1e9:.2f}", f"{top1}%" if top1 else "–"]
        start = found.index(numbers[0])
        assert found[start : start + 3] == numbers
        assert f"{numbers[0]} M" in METHOD


# The temporal receptive field


@pytest.mark.parametrize(("channels", "num_splits"), [(64, 4), (65, 4), (63, 5), (8, 2), (9, 4)])
def test_output_widths_are_those_msl_concatenates(channels, num_splits):
    """A convolution that outputs its own number everywhere marks the channels of its split."""
    msl = MSL(channels, num_splits).eval()
    for number, branch in enumerate(msl.branches):
        branch.register_forward_hook(lambda m, i, output, number=number: torch.full_like(output, number + 2))
    with torch.no_grad():
        y = msl(torch.ones(1, channels, 1, 2, 2))[0, :, 0, 0, 0]
    assert y.unique_consecutive(return_counts=True)[1].tolist() == figures.output_widths(msl)


def test_receptive_fields():
    (_, r3d), (_, msl), (_, msf) = (figures.receptive_fields()[name] for name in ("R3D block", "MSL", "MSF block"))
    assert figures.frames_seen(r3d) == [5]
    assert figures.frames_seen(msl) == [1, 3, 5, 7]
    assert figures.frames_seen(msf) == [3, 5, 7, 9]
    assert (msl > 0).sum(2).tolist() == [[1, 0, 0, 0], [0, 3, 0, 0], [0, 5, 3, 0], [0, 7, 5, 3]]


def test_outermost_frames_have_little_of_the_gradient():
    msl, msf = (figures.receptive_fields()[name][1].sum(1) for name in ("MSL", "MSF block"))
    for share in (msl[3], msf[2], msf[3]):
        outermost = share[share > 0][[0, -1]]
        assert all(0.005 < end < 0.03 for end in outermost.tolist())
    assert "1 to 3% of the gradient" in METHOD


@pytest.mark.parametrize("dim", [3, 4])
def test_spatial_receptive_field_grows_alike(dim):
    torch.manual_seed(0)
    msl, shape = MSL(16, 4).eval(), [1, 16, 3, 3, 3]
    shape[dim] = 15
    x = torch.randn(shape, requires_grad=True)
    middle = [slice(None), slice(None), 1, 1, 1]
    middle[dim] = 7
    y, seen = msl(x)[tuple(middle)], []
    for part in y.split(figures.output_widths(msl), dim=1):
        (grad,) = torch.autograd.grad(part.sum(), x, retain_graph=True)
        seen.append(int((grad.abs().transpose(1, dim).flatten(2).sum((0, 2)) > 0).sum()))
    assert seen == [1, 3, 5, 7]


@pytest.mark.slow
def test_receptive_field_by_depth():
    r3d, msf = figures.receptive_field_by_depth(R3D), figures.receptive_field_by_depth(MSF)
    assert list(r3d.values()) == [(frames, frames) for frames in (7, 11, 17, 25, 37, 53, 77, 109)]
    assert (msf["layer1.0"], msf["layer4.1"]) == ((5, 11), (181, 229))
    for numbers in ("7, 11, 17, 25, 37, 53, 77 and 109", "5 to 11", "181 to 229", "11 frames"):
        assert numbers in METHOD


def test_splits():
    assert [tables.split_frames(num_splits) for num_splits in (2, 4)] == [[1, 3], [1, 3, 5, 7]]
    assert tables.split_frames(5)[-1] == 9
    shares = {num_splits: round(tables.weight_share(num_splits), 2) for num_splits in range(2, 7)}
    assert shares == {2: 0.25, 3: 0.35, 4: 0.39, 5: 0.38, 6: 0.37}
    assert "39% of the weights" in METHOD


def test_sizes_in_the_text():
    r3d, msf, fsam = (summarize(name) for name in (R3D, MSF, f"{MSF}_fsam"))
    assert (round(1 - msf.params / r3d.params, 2), round(1 - msf.macs / r3d.macs, 2)) == (0.34, 0.31)
    assert fsam.params - msf.params == pytest.approx(0.042e6, abs=500)
    assert fsam.macs / msf.macs < 1.001
    for number in ("34%", "31%", "0.042 M"):
        assert number in METHOD


# FAM


def test_first_frequency_is_global_average_pooling():
    x = torch.randn(2, 1, 3, 5, 9)
    assert TOP16[0] == (0, 0)
    assert torch.allclose(FrequencyPool(1, ((0, 0),))(x), 7 * x.mean((2, 3, 4)), atol=1e-5)


def test_responses_are_what_the_fc_layers_receive():
    """SE receives 1 from every pattern, and FAM what the chart shows."""
    for pattern in figures.patterns().values():
        x, received = pattern.expand(1, 16, *pattern.shape), []
        for attention in (SE(16, reduction=1), FAM(16, reduction=1)):
            attention.fc.register_forward_pre_hook(lambda m, inputs, received=received: received.append(inputs[0][0]))
            attention(x)
        assert torch.allclose(received[0], torch.ones(16), atol=1e-5)
        assert torch.equal(received[1], figures.response(pattern)[0])


def test_textures_that_fam_distinguishes():
    found = {name: figures.response(pattern)[0] for name, pattern in figures.patterns().items()}
    assert all(fam[0] == pytest.approx(7, abs=1e-5) for fam in found.values())
    strongest = {name: TOP16[int(fam[1:].abs().argmax()) + 1] for name, fam in found.items() if fam[1:].abs().max() > 1}
    assert strongest == {
        "vertical stripes, wide": (0, 2),
        "vertical stripes, narrow": (0, 6),
        "horizontal stripes, narrow": (6, 0),
        "checkerboard, coarse": (2, 2),
        "left half brighter": (0, 1),
        "right half brighter": (0, 1),
    }
    assert torch.allclose(found["left half brighter"][1:], -found["right half brighter"][1:], atol=1e-5)
    fine = found["checkerboard, fine"][1:].abs()
    assert 0.5 < fine.max() < 1
    assert int((fine > 0.05).sum()) == 6


def test_flicker_and_motion_reach_sam_but_not_fam():
    found = {name: figures.response(pattern) for name, pattern in figures.patterns().items()}
    for name in ("constant", "flicker", "moving stripes", "horizontal stripes, wide"):
        assert found[name][0][1:].abs().max() < 1e-4
    changing = {name: round(sam, 1) for name, (_, sam) in found.items() if sam > 1e-4}
    assert changing == {"flicker": 1.0, "moving stripes": 0.7}


def test_frequency_response():
    cycles = torch.linspace(0, 7, 141)
    still = figures.frequency_response(cycles, over_time=False)
    assert float(still[0, 0]) == pytest.approx(1, abs=1e-4)
    assert still[:, -1].max() < 1e-5
    peaks = [round(float(cycles[int(amplitude.argmax())]), 1) for amplitude in still[1:]]
    assert peaks == sorted(peaks)
    assert (peaks[0], peaks[-1]) == (0.7, 3.4)
    assert "from 0.7 stripes for (0, 1) to 3.4 for (0, 6)" in METHOD
    assert int(still[:, 85].argmax()) == 5  # 4.25 stripes are finer than (0, 6) resolves, and alias to (0, 5)
    assert figures.frequency_response(cycles, over_time=True)[1:].max() < 1e-5


def test_independent_frequencies_of_small_maps():
    pool = FrequencyPool(16)
    ranks = [int(torch.linalg.matrix_rank(pool.weight(size, size).flatten(1))) for size in (14, 7, 4, 3, 2, 1)]
    assert ranks == [16, 16, 10, 8, 4, 1]
    assert "16, 16, 10, 8, 4, 1" in METHOD


# SAM


def test_receptive_field_of_sam():
    sam, x = SAM(), torch.randn(1, 4, 15, 15, 15, requires_grad=True)
    sam.gate(channel_summary(x))[0, 0, 7, 7, 7].backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [7, 7, 7]


def test_inputs_of_sam_are_those_of_the_networks():
    found = []
    with torch.device("meta"), torch.no_grad():
        for name in (f"{MSF}_fsam", "msf_c3d_fsam"):
            model = create_model(name).eval()
            for module in model.modules():
                if isinstance(module, FSAM):
                    module.register_forward_pre_hook(lambda m, inputs: found.append(tuple(inputs[0].shape[1:])))
            model(torch.zeros(1, *model.input_shape))
    assert found == [(256, 2, 14, 14), (512, 1, 7, 7), (256, 8, 28, 28), (512, 2, 7, 7)]
    assert [shape[1:] for shape in found] == list(tables.FSAM_INPUTS.values())


def test_coverage_of_the_kernel_of_sam():
    coverage = [tables.sam_coverage(*shape) for shape in tables.FSAM_INPUTS.values()]
    assert [float((share > 0).float().mean()) for share in coverage] == pytest.approx([3 / 7, 1 / 7, 1, 3 / 7])
    assert coverage[1][3, 3, 3] == pytest.approx(1, abs=1e-4)  # the middle weight meets every value
    assert "86% of its weights" in METHOD
