"""From `--grid` and `--sample` to trials: what each changes in a recipe, and what its runs' folders are called.

Pure functions: no run, no file, no cluster is touched here. A trial's values and name depend on its own keys alone, so
that a sweep that grows by values, draws or seeds keeps the trials that it had.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msfnet.recipe import Recipe, change, recipe_keys
from msfnet.types import UserError

RANGE = re.compile(r"(linear:)?(.+?)\.\.(.+)")
PLAIN = re.compile(r"[a-z0-9+-][a-z0-9._+-]{0,39}")  # what every file system and shell takes as it is
LONGEST_NAME = 120  # characters of a folder's name, short enough for the paths of Windows


@dataclass(frozen=True)
class Choice:
    """A key and the values that it takes, as `--set` takes them."""

    key: str
    values: tuple[str, ...]

    def draw(self, rng: random.Random) -> str:
        return rng.choice(self.values)


@dataclass(frozen=True)
class Range:
    """A key and the bounds between which its value is drawn: log-uniform, or `linear`; whole numbers if both are."""

    key: str
    low: float
    high: float
    linear: bool

    def draw(self, rng: random.Random) -> str:
        """Four digits, enough to try and few enough to read."""
        if self.linear:
            value = rng.uniform(self.low, self.high)
        else:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        value = round(value) if isinstance(self.low, int) and isinstance(self.high, int) else float(f"{value:.4g}")
        return repr(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Trial:
    """One choice of values: `overrides` of a recipe, `table.key=value` each in the order of keys."""

    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its folders are called, before the seed: safe on every file system, and unlike any other trial's."""
        parts = (override.partition("=") for override in self.overrides)
        name = "_".join(f"{short_key(key)}={_plain(value)}" for key, _, value in parts) or "recipe"
        return name if len(name) <= LONGEST_NAME else _tagged(name[: LONGEST_NAME - 9], name)


@dataclass(frozen=True)
class Run:
    """One run of many: the folder's name and the recipe."""

    name: str
    recipe: Recipe


def read_axes(grid: Iterable[str], drawn: Iterable[str]) -> tuple[list[Choice], list[Choice | Range]]:
    """`KEY=a,b,c` of a grid; `KEY=LOW..HIGH`, `KEY=linear:LOW..HIGH` or `KEY=a,b,c` to draw from.

    Raises UserError for what is neither, and for a key that is there twice.
    """
    choices = [Choice(*_split(text, "--grid KEY=VALUE,VALUE,...")) for text in grid]
    axes = [_drawn_axis(*_split(text, "--sample KEY=LOW..HIGH")) for text in drawn]
    keys = [axis.key for axis in (*choices, *axes)]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"expected each key once in --grid and --sample, found {twice} {keys.count(twice)} times")
    return choices, axes


def expand(grid: Sequence[Choice], drawn: Sequence[Choice | Range], draws: int, seed: int) -> list[Trial]:
    """Every point of the grid, at each of `draws` draws of the other keys; a trial that comes twice is there once.

    A drawn value is a function of seed, number of the draw, and key.
    """
    points = list(itertools.product(*([(axis.key, value) for value in axis.values] for axis in grid)))
    draws_of_keys = [
        tuple((axis.key, axis.draw(random.Random(f"{seed} {number} {axis.key}"))) for axis in drawn)
        for number in range(draws if drawn else 1)
    ]
    trials = (Trial(tuple(f"{k}={v}" for k, v in sorted((*point, *d)))) for d in draws_of_keys for point in points)
    return list(dict.fromkeys(trials))


def runs_of(recipe: Recipe, trial: Trial, n_seeds: int) -> list[Run]:
    """A trial's runs: the recipe with its values, and so many seeds from the recipe's own on.

    Raises UserError for values that no recipe can have, and for keys that decide what trials are compared on.
    """
    changed = change(recipe, trial.overrides)
    if changed.train.seed != recipe.train.seed:
        raise UserError("expected no sweep over train.seed: --seeds N takes N seeds of every trial")
    for key in ("val_fraction", "groups"):
        if getattr(changed.data, key) != getattr(recipe.data, key):
            raise UserError(f"expected no sweep over data.{key}: trials are ranked on the same videos; use --set")
    seeds = range(recipe.train.seed, recipe.train.seed + n_seeds)
    return [Run(f"{trial.name}-seed{seed}", change(changed, [f"train.seed={seed}"])) for seed in seeds]


def short_key(key: str) -> str:
    """The end of a key that no other recipe key has: `lr`, `width`, but `optim.name`."""
    others = [other for other in recipe_keys() if other != key]
    parts = key.split(".")
    ends = (".".join(parts[-n:]) for n in range(1, len(parts)))
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)


def _split(text: str, form: str) -> tuple[str, tuple[str, ...]]:
    key, equals, values = (part.strip() for part in text.partition("="))
    if not (equals and key and values):
        raise UserError(f"expected {form}, found {text!r}")
    items = _items(values)
    if not all(items):
        raise UserError(f"expected {form} without empty values, found {text!r}")
    if twice := next((item for item in items if items.count(item) > 1), None):
        raise UserError(f"expected each value of {key} once, found {twice} {items.count(twice)} times")
    return key, items


def _items(text: str) -> tuple[str, ...]:
    """The parts between commas that are in no brackets and no quotes."""
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and not depth and not quote:
            items.append("")
        else:
            items[-1] += character
    return tuple(item.strip() for item in items)


def _drawn_axis(key: str, values: tuple[str, ...]) -> Choice | Range:
    match = RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if not match:
        return Choice(key, values)
    low, high, linear = _number(match[2]), _number(match[3]), bool(match[1])
    if low is None or high is None or not low < high:
        raise UserError(f"expected --sample {key}=LOW..HIGH with two numbers, the lower first, found {values[0]}")
    if low <= 0 and not linear:
        raise UserError(
            f"expected a lower bound of {key} above 0 for a log-uniform draw, found {match[2]}; "
            f"--sample {key}=linear:{match[2]}..{match[3]} draws evenly"
        )
    return Range(key, low, high, linear)


def _number(text: str) -> int | float | None:
    """A finite TOML number, whole where it is written so."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _plain(value: str) -> str:
    """A value as a part of a folder's name; where that takes changing it, a tag tells it from others alike."""
    if PLAIN.fullmatch(value):
        return value
    return _tagged(re.sub(r"[^a-z0-9.+]+", "-", value.lower()).strip("-.")[:40], value)


def _tagged(name: str, whole: str) -> str:
    return f"{name}~{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
