"""The trials of a sweep: which there are, what they change, and the names of their folders."""

import re

import pytest
from conftest import logged
from hypothesis import given
from hypothesis import strategies as st

from msfnet.experiments.sweep import plan_trials
from msfnet.experiments.trials import (
    MAX_NAME_LENGTH,
    Choice,
    Range,
    Trial,
    expand,
    parse_search_space,
    runs_of_trial,
    short_key,
)
from msfnet.recipe import load_recipe, recipe_keys
from msfnet.types import UserError


def plan(grid=(), sample=(), num_samples=None):
    return plan_trials(load_recipe("small"), grid, sample, num_samples)


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ([], ["recipe"]),
        (["optim.lr=0.01,0.05"], ["lr=0.01", "lr=0.05"]),
        (
            ["optim.lr=0.01,0.05", "model.width_mult=0.125,0.25"],
            [
                "width_mult=0.125_lr=0.01",
                "width_mult=0.25_lr=0.01",
                "width_mult=0.125_lr=0.05",
                "width_mult=0.25_lr=0.05",
            ],
        ),
        (["optim.name=sgd", "model.name=r3d_18"], ["model.name=r3d_18_optim.name=sgd"]),
        (["model.kwargs.num_splits=2,4"], ["num_splits=2", "num_splits=4"]),
        (["model.kwargs.placement=a , b"], ["placement=a", "placement=b"]),
        (["clip.views=1x1,4x1"], ["views=1x1", "views=4x1"]),
    ],
)
def test_grid_names(grid, names):
    assert [trial.name for trial in plan(grid)] == names


def test_values_may_contain_commas_in_brackets():
    trials = plan(["clip.resize=[90, 70],[100,80]", "model.kwargs={num_splits = 2},{num_splits = 4, placement = 'c'}"])
    recipes = [runs_of_trial(load_recipe("small"), trial, 1)[0].recipe for trial in trials]
    assert [(recipe.clip.resize, recipe.model.kwargs) for recipe in recipes] == [
        ((90, 70), {"num_splits": 2}),
        ((90, 70), {"num_splits": 4, "placement": "c"}),
        ((100, 80), {"num_splits": 2}),
        ((100, 80), {"num_splits": 4, "placement": "c"}),
    ]


def test_seeds_of_a_trial_start_with_the_recipes_own():
    recipe = load_recipe("small", ["train.seed=5"])
    (trial,) = plan(["optim.lr=0.3"])
    runs = runs_of_trial(recipe, trial, 3)
    assert [run.name for run in runs] == ["lr=0.3-seed5", "lr=0.3-seed6", "lr=0.3-seed7"]
    assert [(run.recipe.optim.lr, run.recipe.train.seed) for run in runs] == [(0.3, 5), (0.3, 6), (0.3, 7)]
    assert runs[0].recipe.data == recipe.data


def test_every_sample_is_tried_at_every_point_of_the_grid():
    trials = plan(["model.width_mult=0.125,0.25"], ["optim.lr=1e-3..1e-1", "augment.mixup=linear:0..1"], 5)
    assert len(trials) == 10
    values = [dict(override.split("=") for override in trial.overrides) for trial in trials]
    assert all(list(row) == ["augment.mixup", "model.width_mult", "optim.lr"] for row in values)
    pairs = [(row["optim.lr"], row["augment.mixup"]) for row in values]
    assert pairs[::2] == pairs[1::2]
    assert len(set(pairs)) == 5


def test_extending_a_sweep_keeps_its_trials():
    """More samples, more keys and more values leave the sampled values and the names as they were."""
    few, many = plan([], ["optim.lr=1e-3..1e-1"], 3), plan([], ["optim.lr=1e-3..1e-1"], 8)
    assert many[:3] == few
    both = plan([], ["augment.mixup=linear:0..1", "optim.lr=1e-3..1e-1"], 3)
    assert [trial.overrides[1] for trial in both] == [trial.overrides[0] for trial in few]
    assert set(plan(["optim.lr=1,2"])) < set(plan(["optim.lr=3,2,1"]))


def test_duplicate_samples_are_tried_once():
    lines = []
    with logged(lines.append):
        assert len(plan([], ["model.name=r3d_18,c3d"], 10)) == 2
    assert lines == ["10 samples gave 2 different trials"]


@pytest.mark.parametrize(
    ("grid", "sample", "num_samples", "message"),
    [
        (["optim.lr"], [], None, "expected --grid KEY=VALUE,VALUE,..., found 'optim.lr'"),
        (["optim.lr="], [], None, "expected --grid KEY"),
        (["=3"], [], None, "expected --grid KEY"),
        (["optim.lr=1,,2"], [], None, "without empty values, found 'optim.lr=1,,2'"),
        (["optim.lr=1,2,1"], [], None, "each value of optim.lr once, found 1 2 times"),
        (["optim.lr=1", "optim.lr=2"], [], None, "each key once in --grid and --sample, found optim.lr 2 times"),
        (["optim.lr=1"], ["optim.lr=1..2"], 2, "each key once"),
        ([], ["optim.lr"], 2, "expected --sample KEY=LOW..HIGH, found 'optim.lr'"),
        ([], ["optim.lr=2..1"], 2, "two numbers, the lower one first, found 2..1"),
        ([], ["optim.lr=a..b"], 2, "two numbers, the lower one first, found a..b"),
        ([], ["optim.lr=1..inf"], 2, "two numbers"),
        (
            [],
            ["augment.mixup=0..1"],
            2,
            "above 0 to sample log-uniformly, found 0; --sample augment.mixup=linear:0..1 samples uniformly",
        ),
        ([], ["optim.lr=1..2"], None, "expected --num-samples N"),
        ([], ["optim.lr=1..2"], 0, "expected --num-samples N"),
        (["optim.lr=1,2"], [], 3, "expected --num-samples N"),
    ],
)
def test_invalid_search_spaces_are_refused_in_one_line(grid, sample, num_samples, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        plan(grid, sample, num_samples)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.rl=1", "did you mean optim.lr"),
        ("optim.lr=fast", "recipe key optim.lr: .*found 'fast'"),
        ("train.seed=4", "no sweep over train.seed: --seeds N runs every trial with N seeds"),
        ("data.val_fraction=0.3", "no sweep over data.val_fraction: trials are ranked on the same videos"),
        ("data={group_split = false, val_fraction = 0}", "no sweep over data.group_split"),
    ],
)
def test_unknown_keys_and_keys_of_the_ranking_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        runs_of_trial(load_recipe("small"), Trial((override,)), 2)


@pytest.mark.parametrize("key", recipe_keys())
def test_short_key_belongs_to_one_key_only(key):
    short = short_key(key)
    assert key == short or key.endswith(f".{short}")
    assert [other for other in recipe_keys() if f".{other}".endswith(f".{short}")] == [key]


# Any text that a shell can pass


keys = st.sampled_from([*recipe_keys(), "model.kwargs.num_splits", "model.kwargs.placement"])
words = st.text(st.characters(codec="utf-8", exclude_characters=",[]{}\"'"), min_size=1, max_size=60).filter(
    lambda text: text.strip() == text and text
)
plain = st.text("abcxyz0189.-+_", min_size=1, max_size=50).filter(lambda text: text.strip() == text)
axes = st.dictionaries(keys, st.lists(words | plain, min_size=1, max_size=4, unique=True), min_size=1, max_size=4)
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


@given(axes)
def test_grid_has_every_combination_with_a_safe_unique_name(values):
    choices = [Choice(key, tuple(texts)) for key, texts in values.items()]
    trials = expand(choices, (), 1, 0)
    expected = 1
    for choice in choices:
        expected *= len(choice.values)
        assert {o for trial in trials for o in trial.overrides if o.startswith(f"{choice.key}=")} == {
            f"{choice.key}={value}" for value in choice.values
        }
    assert len(trials) == len({trial.overrides for trial in trials}) == expected
    names = [trial.name for trial in trials]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._+=~-]+", name), name
        assert len(name) <= MAX_NAME_LENGTH
        assert not RESERVED.match(name)


@given(axes)
def test_grid_survives_a_round_trip_through_text(values):
    texts = [f"{key}={','.join(items)}" for key, items in values.items()]
    assert parse_search_space(texts, [])[0] == [Choice(key, tuple(items)) for key, items in values.items()]


numbers = st.integers(1, 10**6) | st.floats(1e-9, 1e6, allow_nan=False)


@given(numbers, numbers, st.booleans(), st.integers(0, 99))
def test_samples_are_within_their_bounds(a, b, linear, seed):
    """They are integers if both bounds are."""
    low, high = sorted((a, b))
    if low == high:
        return
    text = f"optim.lr={'linear:' if linear else ''}{low!r}..{high!r}"
    (axis,) = parse_search_space([], [text])[1]
    assert axis == Range("optim.lr", low, high, linear)
    for trial in expand((), [axis], 5, seed):
        value = trial.overrides[0].partition("=")[2]
        assert low <= float(value) <= high
        if isinstance(low, int) and isinstance(high, int):
            assert int(value) == float(value)


def test_log_uniform_samples_are_equally_frequent_in_each_decade():
    def shares(text):
        values = [float(trial.overrides[0].split("=")[1]) for trial in plan([], [text], 600)]
        return [sum(low <= value < 10 * low for value in values) / len(values) for low in (1e-3, 1e-2, 1e-1)]

    assert shares("optim.lr=1e-3..1.0") == pytest.approx([1 / 3] * 3, abs=0.08)
    assert shares("optim.lr=linear:1e-3..1.0")[2] > 0.8
