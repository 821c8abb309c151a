"""Recipes: the bundled ones, overrides, and the errors for what cannot be."""

import json
import pickle

import pytest
import tomli_w

from msfnet.models.registry import create_model
from msfnet.recipe import Recipe, bundled_recipes, change, load_recipe, recipe_keys
from msfnet.training.optim import lr_factor, make_optimizer
from msfnet.types import Preprocessing, UserError, Views, resize_for


def test_bundled_recipes():
    assert list(bundled_recipes()) == ["best", "demo", "paper", "small"]


@pytest.mark.parametrize("name", ["best", "demo", "paper", "small"])
def test_bundled_recipe_builds_its_network(name):
    """Its header names the command, the cost and the expected score."""
    recipe = load_recipe(name)
    model = create_model(recipe.model.name, 4, width_mult=recipe.model.width_mult, **recipe.model.kwargs)
    make_optimizer(model, recipe.optim, recipe.learning_rate())
    header = bundled_recipes()[name].partition("[model]")[0]
    for word in ("Command:", "Cost:", "Expected:"):
        assert word in header


def test_paper_is_section_4_2():
    recipe = load_recipe("paper")
    clip, augment, optim = recipe.clip, recipe.augment, recipe.optim
    assert (clip.num_frames, clip.crop_size, clip.resize) == (8, 112, (171, 128))
    assert (clip.train_sampling, augment.hflip, augment.min_crop_side) == ("random_interval", True, 1.0)
    assert augment.contrast > 0
    assert (optim.name, optim.lr, optim.schedule, optim.decay_epochs) == ("adam", 1e-4, "step", 10)
    assert (optim.weight_decay, optim.warmup_epochs, recipe.train.label_smoothing) == (0, 0, 0)


@pytest.mark.parametrize("name", ["best", "demo", "paper", "small"])
def test_round_trip_through_toml(name, tmp_path):
    recipe = load_recipe(name)
    (tmp_path / "r.toml").write_text(recipe.to_toml())
    assert load_recipe(str(tmp_path / "r.toml")) == recipe


def test_documented_keys_exist():
    promised = "model.name model.width_mult model.pretrained clip.num_frames clip.crop_size data.cache train.epochs "
    promised += "train.batch_size train.seed train.devices train.precision optim.name optim.lr optim.schedule"
    assert set(promised.split()) <= set(recipe_keys())


SAMPLES = {str: "x", int: 3, float: 0.5, bool: False}


@pytest.mark.parametrize("key", recipe_keys())
def test_set_reaches_every_key(key):
    table, name = key.split(".")
    now = getattr(getattr(load_recipe("small"), table), name)
    if name == "views":
        value = "2x3"
    elif name == "kwargs":
        value = {"num_splits": 5}
    elif name == "resize":
        value = (200, 100)
    elif name in ("mean", "std"):
        value = (0.1, 0.2, 0.3)
    elif name == "flip_pairs":
        value = (("GoLeft", "GoRight"), ("Push", "Pull"))
    elif name == "freeze":
        value = ("stem", "layer1.0")
    elif name == "loggers":
        value = ("csv", "wandb")
    elif name == "randaugment":
        value = (2, 7.5)
    elif name == "ratio":
        value = 1.33
    elif name == "devices":
        value = 2
    else:
        options = type(getattr(Recipe(), table)).model_fields[name].annotation
        choices = getattr(options, "__args__", None)
        value = next(c for c in choices if c != now) if choices else SAMPLES[type(now)]
    text = value if isinstance(value, str) else tomli_w.dumps({"v": value}).removeprefix("v = ").strip()
    if isinstance(value, dict):
        text = "{num_splits = 5}"
    changed = load_recipe("small", [f"{key}={text}"])
    assert getattr(getattr(changed, table), name) == value


@pytest.mark.parametrize(
    ("overrides", "arguments"),
    [
        (["model.kwargs.num_splits=4"], {"num_splits": 4}),
        (["model.kwargs.num_splits=4", "model.kwargs.placement=c"], {"num_splits": 4, "placement": "c"}),
        (["model.kwargs.num_splits=4", "model.kwargs={placement = 'c'}"], {"placement": "c"}),
    ],
)
def test_set_reaches_keys_of_model_kwargs(overrides, arguments):
    recipe = load_recipe("small", overrides)
    assert recipe.model.kwargs == arguments
    assert change(load_recipe("small"), overrides) == recipe


def test_change_overrides_keys_of_a_copy():
    recipe = load_recipe("small", ["model.kwargs.num_splits=4"])
    changed = change(recipe, ["optim.lr=0.3", "clip.resize=[90, 80]", "model.kwargs.placement=c"])
    assert (changed.optim.lr, changed.clip.resize) == (0.3, (90, 80))
    assert changed.model.kwargs == {"num_splits": 4, "placement": "c"}
    assert recipe.model.kwargs == {"num_splits": 4}
    assert changed.train == recipe.train
    with pytest.raises(UserError, match=r"did you mean optim\.lr"):
        change(recipe, ["optim.rl=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "did you mean train.epochs"),
        ("trian.epochs=3", "no recipe key 'trian.epochs'; did you mean train.epochs"),
        ("kwargs.num_splits=4", "no recipe key 'kwargs.num_splits'; did you mean model.kwargs?"),
        ("model.kwarg.num_splits=4", "no recipe key 'model.kwarg.num_splits'; did you mean model.kwargs?"),
        ("train.lr=0.1", r"no recipe key 'train.lr'; did you mean optim.lr\?"),
        ("modle.name=c3d", "did you mean model.name or optim.name"),
        ("epochs=3", "no recipe key 'epochs'; did you mean train.epochs"),
        ("clip.resize=[86]", "recipe key clip.resize.1: field required"),
        ("clip.mean=[0.1, 0.2, x]", "recipe key clip.mean: .*found '.0.1, 0.2, x.'"),
        ("optim.lr=inf", "finite number, found inf"),
        ("train.devices=0", "'auto' or .* greater than 0, found 0"),
        ("optim.momentum=3", "no recipe key 'optim.momentum'; there are: optim.name, optim.lr, .*optim.freeze$"),
        ("zzz.zzz=3", "no recipe key 'zzz.zzz'; there are: model.name, .*train.loggers$"),
        ("data.frame=3", "did you mean clip.num_frames"),
        ("model=3", "recipe key model"),
        ("train.epochs", "expected --set table.key=value"),
        ("train.epochs=zero", "recipe key train.epochs: .*found 'zero'"),
        ("train.epochs=0", "greater than 0, found 0"),
        ("optim.name=rmsprop", "'adam', 'adamw' or 'sgd', found 'rmsprop'"),
        ("train.devices=none", "train.devices"),
        ("train.loggers=wanb", "recipe key train.loggers.0: .*found 'wanb'; did you mean wandb"),
        ("train.loggers=neptune", "'csv', 'wandb', 'mlflow' or 'comet', found 'neptune'$"),
        ("clip.views=2by2", "expected views as CLIPSxCROPS"),
        ("clip.views=2x2", "1 or 3 crops, found 2x2"),
        ("clip.resize=[40, 40]", "at least the crop's"),
        ("clip.fps=-1", "expected clip.fps of 0.01 to 1000, or 0 for every frame of a file, found -1"),
        ("clip.fps=1e-9", "found 1e-09"),
        ("clip.fps=nan", "finite number"),
        ("augment.flip_pairs=GoLeft", "recipe key augment.flip_pairs: .*found 'GoLeft'"),
        ('augment.flip_pairs=[["GoLeft"]]', "recipe key augment.flip_pairs.0"),
        ("augment.randaugment=2", "recipe key augment.randaugment: .*found 2"),
        ("augment.randaugment=[2, 11]", "less than or equal to 10, found 11"),
        ("data.class_balance=1.5", "less than or equal to 1, found 1.5"),
        ("optim.layer_decay=0", "greater than 0, found 0"),
        ("optim.freeze=stem", "recipe key optim.freeze: .*found 'stem'"),
        ("train.loss=focus", "'cross_entropy', 'class_weighted' or 'focal', found 'focus'"),
        ("augment.ratio=0.5", "greater than or equal to 1, found 0.5"),
        ("model.name.x=1", "found 'model.name.x': name is a key, not a table"),
    ],
)
def test_invalid_settings_are_errors_of_one_line(override, message):
    with pytest.raises(UserError, match=message) as error:
        load_recipe("small", [override])
    assert "\n" not in str(error.value)


def test_recipe_from_keywords():
    recipe = Recipe(train={"epochs": 5}, optim={"lr": 0.01, "freeze": ["stem"]}, model={"kwargs": {"num_splits": 4}})
    assert (recipe.train.epochs, recipe.optim.lr, recipe.optim.freeze) == (5, 0.01, ("stem",))
    assert recipe.train.batch_size == Recipe().train.batch_size
    assert recipe.model_kwargs()["num_splits"] == 4
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": {"epoch": 3}}, "no recipe key 'train.epoch'; did you mean train.epochs?"),
        ({"trian": {"epochs": 3}}, "no recipe key 'trian.epochs'; did you mean train.epochs?"),
        ({"train": {"epochs": 0}}, "recipe key train.epochs: input should be greater than 0, found 0"),
        ({"train": 3}, "recipe key train: .*found 3"),
        ({"clip": {"resize": [40, 40]}}, "at least the crop's"),
    ],
)
def test_wrong_keywords_are_errors_of_one_line(tables, message):
    with pytest.raises(UserError, match=message) as error:
        Recipe(**tables)
    assert "\n" not in str(error.value)


def test_overrides_as_a_mapping():
    overrides = {"optim.lr": 0.3, "clip.resize": (90, 80), "model.kwargs.placement": "c"}
    recipe = load_recipe("small", overrides)
    assert (recipe.optim.lr, recipe.clip.resize, recipe.model.kwargs) == (0.3, (90, 80), {"placement": "c"})
    assert recipe == load_recipe("small", ["optim.lr=0.3", "clip.resize=[90, 80]", "model.kwargs.placement=c"])
    with pytest.raises(UserError, match=r"did you mean optim\.lr"):
        load_recipe("small", {"optim.rl": 0.3})


def test_unknown_recipe_and_bad_toml(tmp_path):
    with pytest.raises(UserError, match="did you mean paper"):
        load_recipe("papr")
    (tmp_path / "bad.toml").write_text("[model\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"[model]\nname = c3\xff\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize(("size", "resize"), [(112, (171, 128)), (56, (86, 64)), (224, (342, 256))])
def test_resize_follows_the_crop(size, resize):
    assert resize_for(size) == resize
    assert load_recipe("small", [f"clip.crop_size={size}"]).preprocessing().resize == resize


@pytest.mark.parametrize("overrides", [[], ["clip.fps=8.33"]])
def test_preprocessing_round_trip(overrides):
    preprocessing = load_recipe("small", overrides).preprocessing()
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    assert Views.parse("10x3") == Views(10, 3)


@pytest.mark.parametrize(
    ("overrides", "table"),
    [
        (["optim.schedule=step", "optim.decay_epochs=10"], [(0, 1), (9.99, 1), (10, 0.1), (25, 0.01)]),
        (["optim.schedule=constant"], [(0, 1), (39, 1)]),
        (["optim.schedule=cosine"], [(0, 1), (20, 0.5), (40, 0)]),
        (["optim.schedule=cosine", "optim.warmup_epochs=4"], [(1, 0.25), (4, 1), (22, 0.5), (40, 0), (41, 0)]),
    ],
)
def test_learning_rate(overrides, table):
    optim = load_recipe("paper", overrides).optim
    for epoch, factor in table:
        assert lr_factor(optim, epoch, epochs=40) == pytest.approx(factor, abs=1e-6)


def test_norms_and_biases_do_not_decay():
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25)
    decayed, free = make_optimizer(model, load_recipe("small").optim, 0.1).param_groups
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0 < decayed["weight_decay"]
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))
