"""The trials of a sweep: from `--grid` and `--sample` to overrides of a recipe and names of run folders.

Pure functions: nothing is trained, read or written here. The values and the name of a trial depend on its own keys
only, so that a sweep that is extended by values, samples or seeds keeps the trials it had.
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
from functools import cache

from msfnet.recipe import Recipe, change, recipe_keys
from msfnet.types import UserError

RANGE = re.compile(r"(linear:)?(.+?)\.\.(.+)")
SAFE_VALUE = re.compile(r"[a-z0-9+-][a-z0-9._+-]{0,39}")  # needs no escaping in any file system or shell
MAX_NAME_LENGTH = 120  # characters of a folder name, short enough for paths on Windows
RANKING_KEYS = ("val_fraction", "group_split")  # keys of the table data that decide which videos trials are ranked on


@dataclass(frozen=True)
class Choice:
    """A recipe key and its possible values, written as `--set` takes them."""

    key: str
    values: tuple[str, ...]

    def sample(self, rng: random.Random) -> str:
        return rng.choice(self.values)


@dataclass(frozen=True)
class Range:
    """A recipe key and the bounds of its value, which is an integer if both bounds are.

    Values are sampled log-uniformly, or uniformly if the range is `linear`.
    """

    key: str
    low: float
    high: float
    linear: bool

    def sample(self, rng: random.Random) -> str:
        """Return a value of four significant digits, which keeps folder names short."""
        if self.linear:
            value = rng.uniform(self.low, self.high)
        else:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        value = round(value) if isinstance(self.low, int) and isinstance(self.high, int) else float(f"{value:.4g}")
        return repr(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Trial:
    """One combination of values: overrides of a recipe, `table.key=value` each, sorted by key."""

    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its run folders without the seed, unique among trials and valid in every file system."""
        parts = (override.partition("=") for override in self.overrides)
        name = "_".join(f"{short_key(key)}={_safe(value)}" for key, _, value in parts) or "recipe"
        return name if len(name) <= MAX_NAME_LENGTH else _with_hash(name[: MAX_NAME_LENGTH - 9], name)


@dataclass(frozen=True)
class PlannedRun:
    """One training run: the name of its folder and its recipe."""

    name: str
    recipe: Recipe


def parse_search_space(grid: Iterable[str], sample: Iterable[str]) -> tuple[list[Choice], list[Choice | Range]]:
    """Parse the options `--grid` and `--sample`.

    Args:
        grid: `KEY=VALUE,VALUE,...` each.
        sample: `KEY=LOW..HIGH`, `KEY=linear:LOW..HIGH` or `KEY=VALUE,VALUE,...` each.

    Returns:
        The keys whose values are all tried, and the keys whose values are sampled.

    Raises:
        UserError: A text has another form, or a key or a value is repeated.
    """
    choices = [Choice(*_split(text, "--grid KEY=VALUE,VALUE,...")) for text in grid]
    sampled = [_parse_sample(*_split(text, "--sample KEY=LOW..HIGH")) for text in sample]
    keys = [axis.key for axis in (*choices, *sampled)]
    if repeated := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"expected each key once in --grid and --sample, found {repeated} {keys.count(repeated)} times")
    return choices, sampled


def expand(grid: Sequence[Choice], sample: Sequence[Choice | Range], num_samples: int, seed: int) -> list[Trial]:
    """Return every point of the grid, at each sample of the other keys, without duplicates.

    A sampled value is a function of the seed, the number of the sample and the key.

    Args:
        grid: Keys whose values are all tried.
        sample: Keys whose values are sampled.
        num_samples: Number of samples at each point of the grid.
        seed: Random seed.
    """
    points = list(itertools.product(*([(axis.key, value) for value in axis.values] for axis in grid)))
    samples = [
        tuple((axis.key, axis.sample(random.Random(f"{seed} {number} {axis.key}"))) for axis in sample)
        for number in range(num_samples if sample else 1)
    ]
    trials = (Trial(tuple(f"{k}={v}" for k, v in sorted((*point, *s)))) for s in samples for point in points)
    return list(dict.fromkeys(trials))


def runs_of_trial(recipe: Recipe, trial: Trial, n_seeds: int) -> list[PlannedRun]:
    """Return the runs of a trial, one for each seed, starting with the recipe's own.

    Args:
        recipe: The recipe that the sweep varies.
        trial: The values to try.
        n_seeds: Number of runs.

    Raises:
        UserError: A value is invalid, or a key decides which videos trials are ranked on.
    """
    changed = change(recipe, trial.overrides)
    if changed.train.seed != recipe.train.seed:
        raise UserError("expected no sweep over train.seed: --seeds N runs every trial with N seeds")
    for key in RANKING_KEYS:
        if getattr(changed.data, key) != getattr(recipe.data, key):
            raise UserError(f"expected no sweep over data.{key}: trials are ranked on the same videos; use --set")
    seeds = range(recipe.train.seed, recipe.train.seed + n_seeds)
    return [PlannedRun(f"{trial.name}-seed{seed}", change(changed, [f"train.seed={seed}"])) for seed in seeds]


@cache
def short_key(key: str) -> str:
    """Return the shortest end of a key that no other recipe key has: `lr` for `optim.lr`, but `optim.name`."""
    others = [other for other in recipe_keys() if other != key]
    parts = key.split(".")
    ends = (".".join(parts[-n:]) for n in range(1, len(parts)))
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)


def _split(text: str, form: str) -> tuple[str, tuple[str, ...]]:
    """Split `KEY=VALUE,VALUE,...`; `form` is what an error message expects."""
    key, equals, values = (part.strip() for part in text.partition("="))
    if not (equals and key and values):
        raise UserError(f"expected {form}, found {text!r}")
    items = _split_commas(values)
    if not all(items):
        raise UserError(f"expected {form} without empty values, found {text!r}")
    if repeated := next((item for item in items if items.count(item) > 1), None):
        raise UserError(f"expected each value of {key} once, found {repeated} {items.count(repeated)} times")
    return key, items


def _split_commas(text: str) -> tuple[str, ...]:
    """Split at the commas that are in no brackets and no quotes."""
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


def _parse_sample(key: str, values: tuple[str, ...]) -> Choice | Range:
    match = RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if not match:
        return Choice(key, values)
    low, high, linear = _number(match[2]), _number(match[3]), bool(match[1])
    if low is None or high is None or not low < high:
        raise UserError(f"expected --sample {key}=LOW..HIGH with two numbers, the lower one first, found {values[0]}")
    if low <= 0 and not linear:
        raise UserError(
            f"expected a lower bound of {key} above 0 to sample log-uniformly, found {match[2]}; "
            f"--sample {key}=linear:{match[2]}..{match[3]} samples uniformly"
        )
    return Range(key, low, high, linear)


def _number(text: str) -> int | float | None:
    """Parse a finite TOML number."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _safe(value: str) -> str:
    """Return a value as a part of a folder name; one that has to be changed gets a hash, which keeps names unique."""
    if SAFE_VALUE.fullmatch(value):
        return value
    return _with_hash(re.sub(r"[^a-z0-9.+]+", "-", value.lower()).strip("-.")[:40], value)


def _with_hash(name: str, whole: str) -> str:
    return f"{name}~{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
