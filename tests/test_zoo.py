"""The paper's networks: sizes as counted from its tables, inputs of every size, and torchvision's keys."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from msfnet.layers.fsam import FSAM
from msfnet.models.blocks import conv3x3x3
from msfnet.models.registry import create_model, list_models, summarize

# Millions of parameters at 101 classes; where the paper prints another number, it is behind.
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
SMALL = {"width_mult": 0.25, "num_classes": 5}


@pytest.mark.parametrize(("name", "kwargs", "millions"), GOLDEN)
def test_parameters_are_those_of_the_paper(name, kwargs, millions):
    assert round(summarize(name, **kwargs).params / 1e6, 3) == millions


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
def test_multiply_adds(name, giga):
    assert round(summarize(name).macs / 1e9, 2) == giga


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_state_dict_has_torchvisions_keys(name):
    """The list holds the keys and shapes of torchvision's Kinetics-400 weights, in their order."""
    expected = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())[name]
    with torch.device("meta"):
        state = create_model(name, 400).state_dict()
    assert [[key, list(value.shape)] for key, value in state.items()] == expected


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_has_a_finite_gradient(name):
    torch.manual_seed(0)
    model = create_model(name, **SMALL, num_frames=4, img_size=32)
    logits = model(torch.randn(2, 3, 4, 32, 32))
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
def test_c3d_can_be_created_for_any_size(name, frames, size):
    model = create_model(name, **SMALL, num_frames=frames, img_size=size).eval()
    assert model(torch.randn(1, 3, frames, size, size)).isfinite().all()


def test_c3d_names_both_shapes_when_they_differ():
    model = create_model("c3d", 3, width_mult=0.125, num_frames=8, img_size=32)
    for call in (model, model.forward_features):
        with pytest.raises(ValueError, match=r"\(3, 8, 32, 32\), found \(3, 8, 32, 40\)"):
            call(torch.zeros(1, 3, 8, 32, 40))


@pytest.mark.parametrize("classes", [2, 400])
@pytest.mark.parametrize("channels", [1, 5])
def test_channels_and_classes(classes, channels):
    model = create_model("msf_r3d_18_fsam", classes, width_mult=0.25, in_chans=channels).eval()
    assert model(torch.randn(1, channels, 4, 32, 32)).shape == (1, classes)


@pytest.mark.parametrize("num_splits", [2, 3, 4, 5, 6, 7, 16])
def test_any_number_of_splits_at_any_width(num_splits):
    model = create_model("msf_r3d_18", 3, width_mult=0.25, num_splits=num_splits).eval()
    assert model(torch.randn(1, 3, 2, 16, 16)).isfinite().all()


def test_logits_in_both_modes_and_deterministic():
    torch.manual_seed(3)
    a = create_model("msf_r3d_18_fsam", 4, width_mult=0.25)
    torch.manual_seed(3)
    b = create_model("msf_r3d_18_fsam", 4, width_mult=0.25)
    x = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(a(x), b(x))
    assert not torch.allclose(a.eval()(x).sum(1), torch.ones(2))  # no softmax at the end


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "msf_c3d_fsam"])
def test_full_size_networks_run(name):
    model = create_model(name, 101).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, *model.input_shape)).shape == (1, 101)


# Features and last layer


@pytest.mark.parametrize(
    ("name", "shape"),
    [("r3d_18", (128, 2, 4, 4)), ("msf_r3d_18_fsam", (128, 2, 4, 4)), ("msf_c3d_fsam", (128, 1, 2, 2))],
)
def test_forward_features_is_the_map_before_pooling(name, shape):
    model = create_model(name, **SMALL, num_frames=16, img_size=56).eval()
    x = torch.randn(2, 3, 16, 56, 56)
    features = model.forward_features(x)
    assert features.shape == (2, *shape)
    if "r3d" in name:
        assert torch.allclose(model.fc(features.mean((2, 3, 4))), model(x), atol=1e-5)
    else:
        hidden = model.fc7(model.fc6(features.flatten(1)).relu()).relu()
        assert torch.allclose(model.fc8(hidden), model(x), atol=1e-5)


@pytest.mark.parametrize("name", ["msf_r3d_18", "c3d"])
def test_reset_classifier_replaces_the_last_layer_only(name):
    model = create_model(name, **SMALL, num_frames=4, img_size=32).double().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(7)
    assert model(torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)).shape == (2, 7)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{model.classifier_name}.weight", f"{model.classifier_name}.bias"}
    with pytest.raises(ValueError, match="num_classes above 0, found 0"):
        model.reset_classifier(0)


# Slots


@pytest.mark.parametrize("name", ["msf_r3d_18", "msf_c3d"])
def test_attention_can_be_any_callable(name):
    """It is called with the channels of the two places, and its weights stay as it made them."""
    channels = []

    def attention(c):
        channels.append(c)
        module = nn.Conv3d(c, c, 1, groups=c)
        nn.init.constant_(module.weight, 3.0)
        return module

    model = create_model(name, **SMALL, attention=attention, num_frames=4, img_size=32)
    assert channels == [64, 128]
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 5)
    assert all((model.get_submodule(place).weight == 3).all() for place in model.attention_names)


def test_attention_class_is_the_named_attention():
    torch.manual_seed(0)
    named = create_model("msf_r3d_18_fsam", **SMALL)
    torch.manual_seed(0)
    given = create_model("msf_r3d_18", **SMALL, attention=FSAM)
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), given.parameters(), strict=True))


def test_convolution_makers_can_be_given():
    made = []

    def conv(c_in, c_out, stride=1):
        made.append((c_in, c_out, stride))
        return conv3x3x3(c_in, c_out, stride)

    r3d = create_model("r3d_18", **SMALL, conv=conv)
    assert len(made) == 16
    msf = create_model("msf_r3d_18", **SMALL, convs=(conv, conv))  # dense convolutions: R3D with path B of MSF
    assert len(made) == 32
    kernels = [[p.shape for p in model.parameters() if p.ndim == 5] for model in (r3d, msf)]
    assert kernels[0] == kernels[1]
    create_model("msf_c3d", **SMALL, conv=conv, img_size=32)
    assert len(made) == 35


# Initialization


@pytest.mark.parametrize("attention", ["fsam", "se", "nst"])
@pytest.mark.parametrize("name", ["msf_r3d_18", "msf_c3d"])
def test_gates_are_not_saturated_at_initialization(name, attention, monkeypatch):
    """With He's initialization a third of FAM's gates would be close to 0 or 1 before training."""
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
def test_zero_init_residual_starts_branches_at_zero(name):
    model = create_model(name, 3, width_mult=0.125, zero_init_residual=True, drop_path_rate=0.2).train()
    plain = create_model(name, 3, width_mult=0.125)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    block, x = model.layer1[1], torch.randn(4, 8, 2, 4, 4)
    block.drop_path.rate = 0.0
    first = block.conv1(x) if name.startswith("msf") else 0  # X of the MSF block is not zeroed
    assert torch.equal(block(x), (first + x).relu())
    block(x).square().sum().backward()
    assert block.conv2[-1].weight.grad.abs().min() > 0  # it can leave zero
