"""The networks: sizes as counted from the paper, inputs of every size, and names that load torchvision's weights."""

import json
from pathlib import Path

import pytest
import torch

from msfnet.models.registry import (
    MODELS,
    count_macs,
    count_parameters,
    create_model,
    list_models,
    summarize,
)
from msfnet.types import UserError

# Millions of parameters at 101 classes; where the paper prints another number, it stands behind.
GOLDEN = [
    ("r3d_18", {}, 33.218),  # 33.18
    ("msf_r3d_18", {}, 21.839),
    ("msf_r3d_18_fsam", {}, 21.881),
    ("msf_r3d_18_se", {}, 21.880),
    ("msf_r3d_18_cbam", {}, 21.881),
    ("msf_r3d_18_nst", {}, 21.839),  # 21.85
    ("msf_r3d_18_a", {}, 26.658),
    ("msf_r3d_18_c", {}, 16.083),  # 16.09
    ("msf_r3d_18_d", {}, 15.527),
    ("msf_r3d_18", {"num_splits": 3}, 21.174),
    ("msf_r3d_18", {"num_splits": 5}, 21.789),
    ("msf_r3d_18", {"num_splits": 6}, 21.490),
    ("c3d", {}, 78.410),
    ("msf_c3d", {}, 69.202),
    ("msf_c3d_fsam", {}, 69.245),
]


@pytest.mark.parametrize(("name", "arguments", "millions"), GOLDEN)
def test_parameters_are_those_of_the_paper(name, arguments, millions):
    assert round(summarize(name, **arguments).params / 1e6, 3) == millions


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("r3d_18", 400, 33_371_472),
        ("r3d_18", 101, 33_218_085),
        ("r2plus1d_18", 400, 31_505_325),
        ("c3d", 101, 78_409_573),
    ],
)
def test_classic_networks_to_the_last_parameter(name, classes, parameters):
    assert summarize(name, classes).params == parameters


def test_older_r2plus1d_is_within_the_papers_rounding():
    assert abs(summarize("r2plus1d_18", middle_per_conv=True).params - 33_226_750) < 50_000


@pytest.mark.parametrize(("name", "giga"), [("r3d_18", 20.35), ("msf_r3d_18", 14.05), ("c3d", 38.55)])
def test_macs(name, giga):
    assert round(summarize(name).macs / 1e9, 2) == giga


def test_macs_on_real_tensors_are_those_on_meta():
    model = create_model("msf_r3d_18_fsam", 5, width_mult=0.25)
    assert count_macs(model, (3, 8, 112, 112)) == summarize("msf_r3d_18_fsam", 5, width_mult=0.25).macs
    assert model.training


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_state_dict_is_torchvisions_key_for_key(name):
    """The list holds the keys and shapes of torchvision's Kinetics-400 weights, in their order."""
    expected = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())[name]
    with torch.device("meta"):
        state = create_model(name, 400).state_dict()
    assert [[key, list(value.shape)] for key, value in state.items()] == expected


SMALL = {"width_mult": 0.25, "num_classes": 5}


@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_trains(name):
    torch.manual_seed(0)
    model = create_model(name, **SMALL, num_frames=4, img_size=32)
    x = torch.randn(2, 3, 4, 32, 32)
    logits = model(x)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("attention", ["none", "fsam", "se", "cbam", "nst"])
@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "msf_r3d_18", "c3d", "msf_c3d"])
def test_each_backbone_takes_each_attention(name, attention):
    model = create_model(name, **SMALL, attention=attention, num_frames=2, img_size=32).eval()
    assert model(torch.randn(1, 3, 2, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    "name", ["r3d_18", "r2plus1d_18", "msf_r3d_18_fsam", "msf_r3d_18_a", "msf_r3d_18_c", "msf_r3d_18_d"]
)
@pytest.mark.parametrize("shape", [(1, 56, 56), (3, 57, 43), (16, 40, 64), (32, 33, 33), (2, 224, 224), (1, 1, 1)])
def test_residual_networks_take_any_size(name, shape):
    model = create_model(name, **SMALL).eval()
    assert model(torch.randn(1, 3, *shape)).isfinite().all()


@pytest.mark.parametrize("name", ["c3d", "msf_c3d_fsam"])
@pytest.mark.parametrize(("frames", "size"), [(1, 16), (8, 112), (16, 57), (32, 48), (5, 31)])
def test_c3d_can_be_made_for_any_size(name, frames, size):
    model = create_model(name, **SMALL, num_frames=frames, img_size=size).eval()
    assert model(torch.randn(1, 3, frames, size, size)).isfinite().all()


@pytest.mark.parametrize("classes", [2, 400])
@pytest.mark.parametrize("channels", [1, 5])
def test_channels_and_classes(classes, channels):
    model = create_model("msf_r3d_18_fsam", classes, width_mult=0.25, in_chans=channels).eval()
    assert model(torch.randn(1, channels, 4, 32, 32)).shape == (1, classes)


@pytest.mark.parametrize("attention", ["fsam", "se", "nst"])
@pytest.mark.parametrize("name", ["msf_r3d_18", "msf_c3d"])
def test_gates_begin_undecided(name, attention, monkeypatch):
    """He's weights would all but shut or open a third of FAM's before anything is learned."""
    gates = []
    sigmoid = torch.Tensor.sigmoid
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda x: gates.append(sigmoid(x)) or gates[-1])
    torch.manual_seed(0)
    model = create_model(name, 18, attention=attention, width_mult=0.5, img_size=56, num_frames=8)
    with torch.no_grad():
        model(torch.randn(4, 3, 8, 56, 56))
    assert len(gates) >= 2
    for gate in gates:
        assert ((gate < 0.02) | (gate > 0.98)).float().mean() < 0.1


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "r2plus1d_18"])
def test_zero_init_starts_residual_branches_at_nothing_and_changes_no_key(name):
    model = create_model(name, 3, width_mult=0.125, zero_init_residual=True, drop_path_rate=0.2).train()
    plain = create_model(name, 3, width_mult=0.125)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    block, x = model.layer1[1], torch.randn(4, 8, 2, 4, 4)
    block.drop_path.rate = 0.0
    kept = block.conv1(x) if name.startswith("msf") else 0  # X of the MSF block has no norm of its own to spare
    assert torch.equal(block(x), (kept + x).relu())
    block(x).square().sum().backward()
    assert block.conv2[-1].weight.grad.abs().min() > 0  # it can leave zero


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 6, 7, 16])
def test_any_number_of_groups_at_any_width(groups):
    model = create_model("msf_r3d_18", 3, width_mult=0.25, num_splits=groups).eval()
    assert model(torch.randn(1, 3, 2, 16, 16)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("r3d", {}, "did you mean .*r3d_18"),
        ("r3d_18", {"group": 4}, "no argument 'group'"),
        ("msf_r3d_18", {"grups": 4}, "did you mean num_splits"),
        ("msf_r3d_18", {"num_splits": "four"}, "a whole number as num_splits, found 'four'"),
        ("msf_r3d_18", {"num_splits": 4.0}, "a whole number as num_splits, found 4.0"),
        ("msf_r3d_18", {"num_splits": True}, "a whole number as num_splits, found True"),
        ("r2plus1d_18", {"middle_per_conv": 1}, "a boolean as middle_per_conv, found 1"),
        ("r3d_18", {"width_mult": "wide"}, "a number as width_mult, found 'wide'"),
        ("r3d_18", {"attention": 3}, "a name as attention, found 3"),
        ("msf_r3d_18", {"num_splits": 65}, "64 channels, found num_splits=65"),
        ("msf_r3d_18", {"num_splits": 1}, "found num_splits=1"),
        ("msf_r3d_18", {"placement": "e"}, "unknown placement 'e'"),
        ("r3d_18", {"attention": "fsm"}, "did you mean fsam"),
        ("msf_r3d_18_fsam", {"width_mult": 0.3}, "16 frequencies, found 77 channels"),
        ("c3d", {"img_size": 8}, "at least 16 px, found 8"),
        ("r3d_18", {"width_mult": 0.0}, "width_mult above 0, found 0.0"),
        ("r3d_18", {"num_classes": 0}, "num_classes above 0, found 0"),
    ],
)
def test_what_cannot_be_is_refused(name, arguments, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **arguments)


def test_c3d_names_both_shapes_when_they_differ():
    with pytest.raises(ValueError, match=r"\(3, 8, 32, 32\), found \(3, 8, 32, 40\)"):
        create_model("c3d", 3, width_mult=0.125, num_frames=8, img_size=32)(torch.zeros(1, 3, 8, 32, 40))


def test_logits_in_both_modes_and_deterministic():
    torch.manual_seed(3)
    a = create_model("msf_r3d_18_fsam", 4, width_mult=0.25)
    torch.manual_seed(3)
    b = create_model("msf_r3d_18_fsam", 4, width_mult=0.25)
    x = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(a(x), b(x))
    assert not torch.allclose(a.eval()(x).sum(1), torch.ones(2))  # no softmax on the way out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "msf_c3d_fsam"])
def test_full_size_networks_run(name):
    model = create_model(name, 101).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, *model.input_shape)).shape == (1, 101)


def test_list_models_names_what_the_commands_promise():
    promised = {"r3d_18", "msf_r3d_18", "msf_r3d_18_fsam", "c3d", "msf_c3d", "msf_c3d_fsam", "r2plus1d_18"}
    assert promised <= set(list_models())
    assert count_parameters(create_model("r3d_18", 2, width_mult=0.125)) > 0
