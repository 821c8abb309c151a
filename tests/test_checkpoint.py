"""Weights files: what their header says, who may read them, and networks of users in them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_registry import Tiny

from msfnet.models import registry
from msfnet.models.checkpoint import (
    KEY,
    Checkpoint,
    TrainedOn,
    header_of,
    load_weights,
    parse_header,
    read_header,
    save_weights,
)
from msfnet.models.registry import create_model, register_model
from msfnet.models.zoo import msf_r3d_18
from msfnet.run_folder import BUNDLED, resolve_weights
from msfnet.types import Preprocessing, UserError

PREPROCESSING = Preprocessing(4, 32, (48, 36), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), "uniform", 2)
TRAINED_ON = TrainedOn("videos", 12, 2)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """A copy of the registry, so that what a test registers is gone after it."""
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    monkeypatch.setattr("msfnet.models.checkpoint.MODELS", registry.MODELS)


def checkpoint(name="r3d_18", kwargs=None, **rest):
    kwargs = {"width_mult": 0.125} if kwargs is None else kwargs
    model = create_model(name, 2, **kwargs)
    return Checkpoint(model, name, kwargs, ("a", "b"), PREPROCESSING, {"epoch": 3}, **rest)


def test_a_file_gives_back_the_checkpoint(tmp_path):
    saved = checkpoint(license="CC BY 4.0", trained_on=TRAINED_ON)
    save_weights(tmp_path / "w.safetensors", saved)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert not loaded.model.training
    own = saved.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in loaded.model.state_dict().items())
    for field in ("name", "kwargs", "classes", "preprocessing", "notes", "license", "trained_on"):
        assert getattr(loaded, field) == getattr(saved, field), field


def test_license_and_data_may_be_unknown(tmp_path):
    save_weights(tmp_path / "w.safetensors", checkpoint())
    header = read_header(tmp_path / "w.safetensors")
    assert (header["license"], header["trained_on"]) == ("", None)
    assert load_weights(tmp_path / "w.safetensors").trained_on is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "msfnet/2"}, r"was written by a newer msfnet \(format 2\); update msfnet"),
        ({"format": "msfnet/12", "classes": None}, r"newer msfnet \(format 12\)"),
        ({"format": "other/1"}, "expected a file that msfnet wrote at w, found damage"),
        ({"format": 7}, "expected a file that msfnet wrote at w, found damage"),
    ],
)
def test_other_formats_are_refused_in_one_line(change, message):
    header = json.loads(header_of(checkpoint())) | change
    with pytest.raises(UserError, match=message) as error:
        parse_header(json.dumps(header), Path("w"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": "msfnet/1"}', '{"format": "msfnet/one"}'])
def test_damaged_headers_are_refused(text):
    with pytest.raises(UserError, match="found damage"):
        parse_header(text, Path("w"))


def test_bundled_weights_say_license_and_data():
    weights = load_weights(resolve_weights(Path(BUNDLED)))
    assert weights.license == "Apache-2.0"
    assert weights.trained_on == TrainedOn("UCF101, official split 1, 18 classes", 1293, 18)


# Networks of users


def test_a_registered_network_is_saved_and_loaded(tmp_path):
    register_model("tiny", Tiny)
    recipe = {"width_mult": 1.0, "num_frames": 4, "img_size": 32, "depth": 3}
    saved = checkpoint("tiny", recipe)
    save_weights(tmp_path / "w.safetensors", saved)
    loaded = load_weights(tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(loaded.model(x), saved.model.eval()(x))


def test_an_unregistered_network_asks_for_registration(tmp_path):
    """A module given directly works in memory; from a file it must be registered."""
    saved = Checkpoint(Tiny(2), "tiny", {}, ("a", "b"), PREPROCESSING, {})
    save_weights(tmp_path / "w.safetensors", saved)
    with pytest.raises(UserError, match=r"this checkpoint needs register_model\('tiny'\) first"):
        load_weights(tmp_path / "w.safetensors")
    register_model("tiny", Tiny)
    assert isinstance(load_weights(tmp_path / "w.safetensors").model, Tiny)


def test_functions_cannot_be_saved_but_registered(tmp_path):
    saved = checkpoint("msf_r3d_18", {"width_mult": 0.125, "attention": torch.nn.BatchNorm3d})
    with pytest.raises(UserError, match="found a function as attention; give it to register_model"):
        save_weights(tmp_path / "w.safetensors", saved)
    assert not list(tmp_path.iterdir())
    register_model("normed", msf_r3d_18, attention=torch.nn.BatchNorm3d)
    save_weights(tmp_path / "w.safetensors", checkpoint("normed"))
    assert isinstance(load_weights(tmp_path / "w.safetensors").model.attention4, torch.nn.BatchNorm3d)


# Files that are none


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("none")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="found something else or a damaged one at"):
        load_weights(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="was not written by msfnet: use it to start training from"):
        load_weights(tmp_path / "foreign.safetensors")
    for name in ("text", "foreign"):
        with pytest.raises(UserError, match="expected weights that msfnet wrote"):
            read_header(tmp_path / f"{name}.safetensors")


def test_tensors_of_another_network_are_damage(tmp_path):
    save_weights(tmp_path / "w.safetensors", checkpoint())
    tensors = load_file(tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    del tensors["fc.bias"]
    save_file(tensors, tmp_path / "w.safetensors", metadata)
    assert KEY in metadata
    with pytest.raises(UserError, match="its tensors do not fit the r3d_18 that it names; the file is damaged"):
        load_weights(tmp_path / "w.safetensors")
