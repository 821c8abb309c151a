"""create_model, list_models and register_model: names, arguments, pretrained weights and networks of users."""

import pytest
import torch
from torch import nn

from msfnet.models import registry
from msfnet.models.registry import (
    count_macs,
    count_parameters,
    create_model,
    default_kwargs,
    list_models,
    register_model,
    summarize,
)
from msfnet.models.zoo import msf_r3d_18
from msfnet.run_folder import BUNDLED
from msfnet.types import UserError


@pytest.fixture
def models(monkeypatch):
    """A copy of the registry, so that what a test registers is gone after it."""
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))


class Tiny(nn.Module):
    """A user's network: any size of input, an argument of its own, no `input_shape`."""

    def __init__(self, num_classes, depth=2):
        super().__init__()
        convs = [nn.Conv3d(3, 3, 3, padding=1) for _ in range(depth)]
        self.body, self.head = nn.Sequential(*convs), nn.Linear(3, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3, 4)))


def test_list_models_has_what_the_commands_promise():
    promised = {"r3d_18", "msf_r3d_18", "msf_r3d_18_fsam", "c3d", "msf_c3d", "msf_c3d_fsam", "r2plus1d_18"}
    assert promised <= set(list_models())
    assert list_models("msf_c3d*") == ["msf_c3d", "msf_c3d_fsam"]
    assert list_models("nothing*") == []


def test_macs_on_real_tensors_are_those_on_meta():
    model = create_model("msf_r3d_18_fsam", 5, width_mult=0.25)
    assert count_macs(model, (3, 8, 112, 112)) == summarize("msf_r3d_18_fsam", 5, width_mult=0.25).macs
    assert model.training


def test_default_kwargs_are_those_of_maker_and_variant():
    kwargs = default_kwargs("msf_c3d_fsam")
    assert kwargs["attention"] == "fsam"
    assert kwargs["num_frames"] == 16
    assert kwargs["reduction"] == 16


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("r3d", {}, "did you mean .*r3d_18"),
        ("r3d_18", {"group": 4}, "no argument 'group'"),
        ("msf_r3d_18", {"num_split": 4}, "did you mean num_splits"),
        ("msf_r3d_18", {"num_splits": "four"}, "a whole number as num_splits, found 'four'"),
        ("msf_r3d_18", {"num_splits": 4.0}, "a whole number as num_splits, found 4.0"),
        ("msf_r3d_18", {"num_splits": True}, "a whole number as num_splits, found True"),
        ("r2plus1d_18", {"middle_per_conv": 1}, "a boolean as middle_per_conv, found 1"),
        ("r3d_18", {"width_mult": "wide"}, "a number as width_mult, found 'wide'"),
        ("r3d_18", {"attention": 3}, "a name or a callable as attention, found 3"),
        ("msf_r3d_18", {"num_splits": 65}, "64 channels, found num_splits=65"),
        ("msf_r3d_18", {"num_splits": 1}, "found num_splits=1"),
        ("msf_r3d_18", {"placement": "e"}, "unknown placement 'e'"),
        ("msf_r3d_18", {"placement": 2}, "unknown placement 2"),
        ("r3d_18", {"attention": "fsm"}, "did you mean fsam"),
        ("msf_r3d_18_fsam", {"width_mult": 0.3}, "16 frequencies, found 77 channels"),
        ("msf_r3d_18_se", {"reduction": 0}, "reduction above 0, found 0"),
        ("c3d", {"img_size": 8}, "at least 16 px, found 8"),
        ("r3d_18", {"width_mult": 0.0}, "width_mult above 0, found 0.0"),
        ("r3d_18", {"num_frames": 0}, "num_frames above 0, found 0"),
        ("r3d_18", {"num_classes": 0}, "num_classes above 0, found 0"),
    ],
)
def test_impossible_arguments_are_named(name, kwargs, message):
    with pytest.raises(UserError, match=message) as error:
        create_model(name, **kwargs)
    assert "\n" not in str(error.value)


# Pretrained weights


def test_bundled_weights_by_name(caplog):
    caplog.set_level("INFO", "msfnet")
    model = create_model("msf_r3d_18_fsam", pretrained=BUNDLED, width_mult=0.25)
    assert model.fc.out_features == 18  # those of the weights, as none were asked for
    assert "copied: 220 keys" in caplog.text
    other = create_model("msf_r3d_18_fsam", 5, BUNDLED, width_mult=0.25)
    assert other.fc.out_features == 5
    assert torch.equal(other.stem[0].weight, model.stem[0].weight)
    assert "randomly initialized: 2 keys (fc 2)" in caplog.text


def test_without_weights_there_are_101_classes():
    assert create_model("r3d_18", width_mult=0.125).fc.out_features == 101


def test_a_users_network_starts_from_its_own_weights(models, tmp_path):
    register_model("tiny", Tiny)
    source = create_model("tiny", 4)
    torch.save(source.state_dict(), tmp_path / "tiny.pth")
    model = create_model("tiny", pretrained=str(tmp_path / "tiny.pth"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))
    other = create_model("tiny", 7, str(tmp_path / "tiny.pth"))
    assert other.head.out_features == 7
    assert torch.equal(other.body[0].weight, source.body[0].weight)


# Networks of users


def test_register_a_class_a_function_and_a_variant(models):
    register_model("tiny", Tiny)
    register_model("tiny_deep", Tiny, depth=5)

    @register_model("tiny_function")
    def tiny_function(num_classes, *, bias=True):
        return Tiny(num_classes)

    register_model("msf_r3d_18_double", msf_r3d_18, width_mult=2.0)
    assert list_models("tiny*") == ["tiny", "tiny_deep", "tiny_function"]
    assert isinstance(tiny_function(3), Tiny)  # the decorator returns the function
    assert len(create_model("tiny_deep", 3).body) == 5
    assert len(create_model("tiny_deep", 3, depth=1).body) == 1
    assert create_model("tiny_function", 3, bias=False)(torch.zeros(1, 3, 2, 4, 4)).shape == (1, 3)
    assert summarize("msf_r3d_18_double").params > 3.9 * summarize("msf_r3d_18").params
    register_model("tiny", Tiny, depth=3)  # a notebook's cell is run once more
    assert len(create_model("tiny", 3).body) == 3


def test_recipe_arguments_reach_a_maker_that_has_them(models):
    """A recipe always gives width_mult, num_frames and img_size; a maker need not have them."""
    register_model("tiny", Tiny)

    @register_model("sized")
    def sized(num_classes, num_frames, width_mult=1.0):
        model = Tiny(num_classes)
        model.seen = num_frames, width_mult
        return model

    @register_model("open")
    def anything(num_classes, **kwargs):
        model = Tiny(num_classes)
        model.seen = kwargs
        return model

    recipe = {"width_mult": 1.0, "num_frames": 4, "img_size": 32}
    create_model("tiny", 3, **recipe)
    assert create_model("sized", 3, **recipe).seen == (4, 1.0)
    assert create_model("open", 3, **recipe).seen == recipe
    with pytest.raises(UserError, match=r"tiny has no argument 'width_mult'; with a recipe, set model\.width_mult=1"):
        create_model("tiny", 3, **recipe | {"width_mult": 0.5})
    with pytest.raises(UserError, match="sized needs the argument 'num_frames'"):
        create_model("sized", 3)


def test_input_of_a_users_network(models):
    """Its attribute says it, else the arguments, else it is the paper's."""
    register_model("tiny", Tiny)
    assert summarize("tiny").input == (3, 8, 112, 112)
    assert summarize("tiny", num_frames=4, img_size=32).input == (3, 4, 32, 32)
    assert summarize("tiny").params == count_parameters(Tiny(101))

    @register_model("shaped")
    def shaped(num_classes):
        model = Tiny(num_classes)
        model.input_shape = (3, 2, 16, 24)
        return model

    assert summarize("shaped").input == (3, 2, 16, 24)


def test_what_cannot_be_registered_is_refused(models):
    with pytest.raises(UserError, match="msf_r3d_18 is a network of msfnet"):
        register_model("msf_r3d_18", Tiny)
    with pytest.raises(UserError, match="tiny has no argument 'dept'; did you mean depth"):
        register_model("tiny", Tiny, dept=3)
    with pytest.raises(UserError, match="a function or class that takes the number of classes, found Tiny"):
        register_model("tiny", Tiny(3))
    with pytest.raises(UserError, match="a function or class that takes the number of classes"):
        register_model("tiny", lambda: Tiny(3))
    register_model("nothing", lambda num_classes: None)
    with pytest.raises(UserError, match=r"expected an nn\.Module from its maker, found NoneType"):
        create_model("nothing")
    register_model("tiny", Tiny)
    with pytest.raises(UserError, match="tiny has no argument 'dept'; did you mean depth"):
        create_model("tiny", dept=3)
