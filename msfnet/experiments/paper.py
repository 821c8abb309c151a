"""The paper's tables, claims and the scales to try them at, read from the TOML files beside this one and checked.

Knows names and numbers only: no network is made and no run is read here.


From rows, a scale and a recipe to runs: what each network is trained with, and what its run folders are called.

Pure: nothing is trained or read here.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from msfnet.experiments.trials import Run
from msfnet.recipe import Recipe, change, load_recipe
from msfnet.types import UserError, nearest


class Checked(BaseModel):
    """What a TOML file says; keys that nothing reads are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(Checked):
    """Numbers as the paper prints them, digits included; empty where it prints none."""

    params: str = ""  # millions
    gmacs: str = ""
    top1: str  # %


@dataclass(frozen=True)
class Network:
    """What is trained for a row: rows that have the same share their runs."""

    model: str
    kwargs: tuple[tuple[str, Any], ...]
    sets: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its run folders are called, before the seed."""
        return "_".join([self.model, *(f"{key}={_toml(value)}" for key, value in self.kwargs)])

    @property
    def overrides(self) -> list[str]:
        """Of a recipe, `table.key=value` each."""
        own = [f"model.kwargs.{key}={_toml(value)}" for key, value in self.kwargs]
        return [f"model.name={self.model}", *own, *self.sets]


class Row(Checked):
    """A line of a table: either a network of ours, by `model`, or quoted from a `source`."""

    table: str
    label: str
    printed: Printed
    model: str = ""
    kwargs: dict[str, Any] = {}
    sets: tuple[str, ...] = ()
    source: str = ""
    remark: str = ""

    @model_validator(mode="after")
    def _ours_or_quoted(self) -> Self:
        if bool(self.model) == bool(self.source):
            raise ValueError(f"table {self.table}, {self.label}: expected one of model and source")
        return self

    @property
    def key(self) -> str:
        """How claims name it."""
        return f"{self.table} {self.label}"

    @property
    def network(self) -> Network | None:
        return Network(self.model, tuple(sorted(self.kwargs.items())), self.sets) if self.model else None


class PaperTable(Checked):
    number: str
    title: str
    classes: int  # of its data set


class Claim(Checked):
    """Row `better` scores higher than each of the rows `than`, by their keys."""

    text: str
    better: str
    than: tuple[str, ...]


class Paper(Checked):
    """All that tables.toml says. Raises ValueError for claims and rows of what is not there."""

    table: tuple[PaperTable, ...]
    row: tuple[Row, ...]
    claim: tuple[Claim, ...] = ()

    def chosen(self, asked: Sequence[str], tables: Sequence[str]) -> tuple[Row, ...]:
        """The rows of `tables` that were asked for, by number of a table or key of a row; all if nothing was.

        Raises UserError for what is neither.
        """
        rows = [row for row in self.row if row.table in tables]
        names = [*tables, *(row.key for row in rows if row.network)]
        for name in asked:
            if name not in names:
                raise UserError(f"no table or row {name!r} at this scale; {nearest(name, names)}")
        return tuple(row for row in rows if not asked or row.table in asked or row.key in asked)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        keys, numbers = [row.key for row in self.row], {table.number for table in self.table}
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"row {twice} is there twice")
        if lost := next((row.key for row in self.row if row.table not in numbers), None):
            raise ValueError(f"row {lost} is of no table")
        ours = {row.key for row in self.row if row.network}
        for claim in self.claim:
            if unknown := {claim.better, *claim.than} - ours:
                raise ValueError(f"claim {claim.text!r}: no row of ours is called {min(unknown)!r}")
        return self


class Scale(Checked):
    """Where rows are trained; scales.toml says what each key is."""

    name: str
    title: str
    tables: tuple[str, ...]
    recipe: str
    size: tuple[str, ...]
    training: tuple[str, ...]
    differs: tuple[str, ...]


@cache
def read_paper() -> Paper:
    return Paper.model_validate(tomllib.loads(_shipped("paper_tables.toml")))


def read_scale(name: str) -> Scale:
    """A scale by name. Raises UserError for one that there is not, with the nearest."""
    scales = tomllib.loads(_shipped("presets.toml"))
    if name not in scales:
        raise UserError(f"no scale {name!r}; {nearest(name, scales)}")
    return Scale.model_validate({"name": name, **scales[name]})


def scale_names() -> list[str]:
    return list(tomllib.loads(_shipped("presets.toml")))


def _shipped(name: str) -> str:
    return (resources.files("msfnet.experiments") / name).read_text("utf-8")


def _toml(value: Any) -> str:
    """A number, a boolean or a text as TOML has it, which for these is as JSON has it."""
    return json.dumps(value)


@dataclass(frozen=True)
class Plan:
    """Some rows of the paper at a scale: `recipe` is the name of the one in use, `sets` the user's own keys.

    `asked` are the tables and rows as the user named them.
    """

    scale: Scale
    asked: tuple[str, ...]
    tables: tuple[PaperTable, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    recipe: str
    sets: tuple[str, ...]
    n_seeds: int

    @property
    def name(self) -> str:
        """The scale's, with the recipe's where that is not the scale's own: what files and folders are called."""
        own = self.recipe == self.scale.recipe
        return self.scale.name if own else f"{self.scale.name}-{Path(self.recipe).stem}"

    @property
    def networks(self) -> list[Network]:
        """Each once, in the order of the rows."""
        return list(dict.fromkeys(row.network for row in self.rows if row.network))

    def recipe_of(self, network: Network) -> Recipe:
        """Raises UserError for keys that no recipe has."""
        training = self.scale.training if self.recipe == self.scale.recipe else ()
        return load_recipe(self.recipe, [*network.overrides, *self.scale.size, *training, *self.sets])

    def runs_of(self, network: Network) -> list[Run]:
        """A run for each seed, from the recipe's own on."""
        recipe = self.recipe_of(network)
        seeds = range(recipe.train.seed, recipe.train.seed + self.n_seeds)
        return [Run(f"{network.name}-seed{seed}", change(recipe, [f"train.seed={seed}"])) for seed in seeds]

    def runs(self) -> list[Run]:
        """All of them, a seed of every network before the next seed, so that the tables soon have a number each."""
        return [run for of_seed in zip(*map(self.runs_of, self.networks), strict=True) for run in of_seed]


def make_plan(
    paper: Paper, scale: Scale, asked: Sequence[str], recipe: str | None, sets: Sequence[str], n_seeds: int
) -> Plan:
    """The tables and rows that were asked for (all of the scale's if none was) and the claims about them.

    Raises UserError for a table or row that the scale does not have, keys that no recipe has, and less than one seed.
    """
    if n_seeds < 1:
        raise UserError(f"expected --seeds of 1 or more, found {n_seeds}")
    rows = paper.chosen(asked, scale.tables)
    keys = {row.key for row in rows}
    plan = Plan(
        scale=scale,
        asked=tuple(asked) or scale.tables,
        tables=tuple(table for table in paper.table if table.number in {row.table for row in rows}),
        rows=rows,
        claims=tuple(claim for claim in paper.claim if keys >= {claim.better, *claim.than}),
        recipe=recipe or scale.recipe,
        sets=tuple(sets),
        n_seeds=n_seeds,
    )
    plan.recipe_of(plan.networks[0])  # its own checks, before anything is read or run
    return plan
