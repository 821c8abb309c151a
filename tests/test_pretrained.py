"""Pretrained weights: what fits is loaded, what does not is reported or refused."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import logged
from torch import nn

from msfnet.models.pretrained import KINETICS400_URLS, load_pretrained, published_url, read_state
from msfnet.models.registry import create_model
from msfnet.models.weight_transfer import r3d_shapes
from msfnet.run_folder import BUNDLED
from msfnet.types import UserError

CLASSES, WIDTH = 8, 0.25
TORCHVISION_KEYS = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())


@pytest.fixture(scope="module")
def r3d(tmp_path_factory):
    """An R3D whose norms differ from channel to channel, as trained ones do; and its file."""
    torch.manual_seed(0)
    model = create_model("r3d_18", CLASSES, width_mult=WIDTH)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm3d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("r3d") / "r3d_18.pth"
    torch.save(model.state_dict(), path)
    return model, path


def state_of(name, **kwargs):
    return create_model(name, CLASSES, width_mult=WIDTH, **kwargs).state_dict()


N_ATTENTION_KEYS = {"fsam": 6, "se": 4, "cbam": 6, "nst": 4}


@pytest.mark.parametrize(
    ("kwargs", "n_random"),
    [
        ({}, 0),
        *(({"attention": name}, n) for name, n in N_ATTENTION_KEYS.items()),
        *(({"num_splits": s}, 0) for s in (2, 3, 5, 7, 16)),
        ({"placement": "c"}, 0),
    ],
)
def test_every_msf_r3d_starts_from_r3d(r3d, kwargs, n_random):
    source, path = r3d
    model = create_model("msf_r3d_18", 5, width_mult=WIDTH, **kwargs)
    report = load_pretrained(model, str(path), "msf_r3d_18")
    assert len(report.randomly_initialized) == n_random + 2
    assert {key.partition(".")[0] for key in report.randomly_initialized} <= {"attention3", "attention4", "fc"}
    assert report.unused == ("fc.bias", "fc.weight")
    own, theirs = model.state_dict(), source.state_dict()
    for key in ("stem.0.weight", "layer1.0.conv1.1.weight", "layer3.0.conv1.0.weight"):
        assert torch.equal(own[key], theirs[key]) == (key in report.copied)
    assert torch.equal(own["layer2.0.downsample.1.weight"], theirs["layer2.0.downsample.0.weight"])
    keys = {key for key in own if not key.endswith("num_batches_tracked")}
    assert sorted(keys) == sorted((*report.copied, *report.adapted, *report.randomly_initialized))
    assert model.eval()(torch.randn(1, 3, 4, 24, 24)).isfinite().all()


@pytest.mark.parametrize(("placement", "part"), [("a", ".conv1.0."), ("d", ".conv1.")])
def test_convolutions_without_counterpart_stay_random(r3d, placement, part):
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH, placement=placement)
    report = load_pretrained(model, str(r3d[1]), "msf_r3d_18")
    assert report.randomly_initialized
    assert all(part in key or ".conv1.1.running" in key for key in report.randomly_initialized)
    first = model.layer2[0].conv1[0][0].weight
    kernel = r3d[0].layer2[0].conv1[0].weight
    middle = kernel[..., 1:2, 1:2] if placement == "d" else kernel[..., 1:2, 1:2, 1:2]
    ratio = first / middle  # one factor per output channel
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4)


def test_torchvisions_kinetics_weights_have_the_keys_needed():
    """Every key and shape of the published file is used by MSF-R3D, but the last layer."""
    keys = {key: tuple(shape) for key, shape in TORCHVISION_KEYS["r3d_18"] if not key.endswith("num_batches_tracked")}
    with torch.device("meta"):
        model = create_model("msf_r3d_18_fsam", 101)
    assert r3d_shapes(model) == {key: shape for key, shape in keys.items() if not key.startswith("fc.")}
    assert published_url("msf_r3d_18_fsam") == published_url("r3d_18") != published_url("r2plus1d_18")
    with pytest.raises(UserError, match="kinetics400 exists for r3d_18, msf_r3d_18, r2plus1d_18, found c3d"):
        published_url("c3d")


def test_downloading_prints_nothing_to_stdout(tmp_path, monkeypatch, capsys):
    """Results go to standard output, where torch.hub announces its downloads."""
    state = {"weight": torch.arange(3.0)}
    torch.save(state, tmp_path / "published.pth")
    digest = hashlib.sha256((tmp_path / "published.pth").read_bytes()).hexdigest()[:8]
    published = (tmp_path / "published.pth").rename(tmp_path / f"weights-{digest}.pth")
    monkeypatch.setitem(KINETICS400_URLS, "r3d_18", published.as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    lines = []
    with logged(lines.append):
        found = read_state("kinetics400", "r3d_18")
    assert torch.equal(found["weight"], state["weight"])
    assert list((tmp_path / "hub").rglob("*.pth"))
    out, errors = capsys.readouterr()
    assert out == ""
    assert "%" not in errors  # no progress bar
    assert any(published.as_uri() in line for line in lines)


@pytest.mark.slow
def test_full_size_msf_r3d_starts_from_torchvisions_keys(tmp_path):
    torch.manual_seed(0)
    state = {key: torch.rand(shape) for key, shape in TORCHVISION_KEYS["r3d_18"]}
    torch.save(state, tmp_path / "r3d_18.pth")
    model = create_model("msf_r3d_18_fsam", 101)
    report = load_pretrained(model, str(tmp_path / "r3d_18.pth"), "msf_r3d_18_fsam")
    assert [key for key in report.randomly_initialized if not key.startswith(("attention", "fc."))] == []
    assert torch.equal(model.layer4[0].conv1[0].weight, state["layer4.0.conv1.0.weight"])


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "msf_r3d_18_fsam", "msf_r3d_18_a", "c3d", "msf_c3d_fsam"])
def test_the_same_network_is_copied_whole(tmp_path, name):
    sizes = {"width_mult": 0.25, "num_frames": 4, "img_size": 32}
    source = create_model(name, 4, **sizes)
    torch.save(source.state_dict(), tmp_path / "s.pth")
    model = create_model(name, 4, **sizes)
    report = load_pretrained(model, str(tmp_path / "s.pth"), name)
    assert (report.adapted, report.randomly_initialized, report.unused) == ((), (), ())
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.state_dict().items())
    other = create_model(name, 7, **sizes)
    report = load_pretrained(other, str(tmp_path / "s.pth"), name)
    assert len(report.randomly_initialized) == len(report.unused) == 2
    assert all(torch.equal(other.state_dict()[key], own[key]) for key in own.keys() - set(report.randomly_initialized))


@pytest.mark.parametrize(
    ("source", "target", "n_random", "n_unused"),
    [
        ("r3d_18", "r3d_18_fsam", 6, 0),
        ("r3d_18_fsam", "r3d_18", 0, 6),
        ("msf_r3d_18_se", "msf_r3d_18_fsam", 6, 4),
        ("r3d_18_fsam", "msf_r3d_18_fsam", 0, 0),
        ("r3d_18_fsam", "msf_r3d_18", 0, 6),
        ("msf_c3d_fsam", "msf_c3d", 0, 6),
        ("msf_c3d", "msf_c3d_fsam", 6, 0),
    ],
)
def test_another_attention_stays_random(tmp_path, source, target, n_random, n_unused):
    sizes = {"num_frames": 4, "img_size": 32}
    torch.save(state_of(source, **sizes), tmp_path / "s.pth")
    report = load_pretrained(create_model(target, CLASSES, width_mult=WIDTH, **sizes), str(tmp_path / "s.pth"), target)
    assert (len(report.randomly_initialized), len(report.unused)) == (n_random, n_unused)
    assert all(
        key.startswith(("attention", "stage3.1", "stage5.1")) for key in (*report.randomly_initialized, *report.unused)
    )


def test_half_precision_and_zero_channels_stay_finite(r3d, tmp_path):
    state = {key: value.clone() for key, value in r3d[0].state_dict().items()}
    for key in ("layer2.0.conv2.0.weight", "layer2.0.downsample.0.weight", "layer1.0.conv1.1.weight"):
        state[key][0] = 0
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, tmp_path / "s"
    )
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH)
    load_pretrained(model, str(tmp_path / "s"), "msf_r3d_18")
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model(torch.randn(2, 3, 4, 24, 24)).isfinite().all()


def test_report_has_a_line_for_every_group(r3d):
    model = create_model("msf_r3d_18_se", 3, width_mult=WIDTH)
    assert load_pretrained(model, str(r3d[1]), "msf_r3d_18_se").lines() == [
        "copied: 54 keys (stem 5, layer1 10, layer2 13, layer3 13, layer4 13)",
        "adapted: 158 keys (layer1 38, layer2 40, layer3 40, layer4 40)",
        "randomly initialized: 6 keys (attention3 2, attention4 2, fc 2)",
        "unused: 2 keys (fc 2)",
    ]


@pytest.mark.parametrize(
    ("source", "kwargs", "target", "message"),
    [
        (
            "r3d_18",
            {"width_mult": 0.125},
            "msf_r3d_18",
            r"its stem.0.weight has 8 channels, expected 16; change width_mult",
        ),
        ("r3d_18", {"width_mult": 0.125}, "r3d_18", "has 8 channels, expected 16; change width_mult"),
        ("r2plus1d_18", {}, "msf_r3d_18", r"does not fit msf_r3d_18: keys \d+ missing \(first: .*unknown \(first: "),
        ("msf_r3d_18", {}, "r3d_18", r"\d+ missing \(first: layer1.0.conv2.0.weight\), \d+ unknown"),
        ("msf_r3d_18", {"num_splits": 3}, "msf_r3d_18", "unknown|of another shape"),
        (
            "r3d_18",
            {"in_chans": 5},
            "msf_r3d_18",
            r"stem.0.weight, \(16, 5, 3, 7, 7\) instead of \(16, 3, 3, 7, 7\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, source, kwargs, target, message):
    torch.save(create_model(source, CLASSES, **{"width_mult": WIDTH} | kwargs).state_dict(), tmp_path / "s.pth")
    model = create_model(target, CLASSES, width_mult=WIDTH)
    before = model.stem[0].weight.clone()
    with pytest.raises(UserError, match=message) as error:
        load_pretrained(model, str(tmp_path / "s.pth"), target)
    assert "\n" not in str(error.value)
    assert torch.equal(model.stem[0].weight, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected bundled weights by name, a weights file, .* or kinetics400, found nothing at"),
        (b"text", "is not a state dict that can be read safely"),
        ([torch.zeros(1)], "expected a dict of tensors in"),
    ],
)
def test_sources_that_are_no_weights_are_refused(tmp_path, content, message):
    path = tmp_path / "s.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        read_state(str(path), "r3d_18")
    assert "\n" not in str(error.value)


def test_code_in_a_state_dict_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"stem.0.weight": Malicious()}, tmp_path / "s.pth")
    with pytest.raises(UserError, match="is not a state dict that can be read safely"):
        read_state(str(tmp_path / "s.pth"), "r3d_18")
    assert not (tmp_path / "ran").exists()


def test_bundled_weights_are_found_by_name():
    assert read_state(BUNDLED, "msf_r3d_18_fsam")["fc.weight"].shape == (18, 128)
