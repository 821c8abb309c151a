"""The paper's tables and claims, the presets to reproduce them with, and the runs that a preset plans.

Tables and presets are read from the TOML files beside this one. Nothing is trained, and no run is read here.
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

from msfnet.experiments.trials import PlannedRun
from msfnet.recipe import Recipe, change, load_recipe
from msfnet.types import UserError, nearest

# Tables of the paper


class StrictModel(BaseModel):
    """Values of a TOML file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(StrictModel):
    """The numbers of a row as the paper prints them, as text to keep all digits; empty where it prints none."""

    params: str = ""  # millions
    gmacs: str = ""
    top1: str  # %


@dataclass(frozen=True)
class Network:
    """What is trained for a row. Rows with the same network share its runs."""

    model: str
    kwargs: tuple[tuple[str, Any], ...]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its run folders without the seed."""
        return "_".join([self.model, *(f"{key}={json.dumps(value)}" for key, value in self.kwargs)])

    @property
    def all_overrides(self) -> list[str]:
        """The recipe keys that make a recipe train this network, `table.key=value` each."""
        kwargs = [f"model.kwargs.{key}={json.dumps(value)}" for key, value in self.kwargs]  # TOML for numbers, booleans
        return [f"model.name={self.model}", *kwargs, *self.overrides]


class Row(StrictModel):
    """A row of a table: either a network of ours, which has a `model`, or a result quoted from a `source`."""

    table: str
    label: str
    printed: Printed
    model: str = ""
    kwargs: dict[str, Any] = {}
    overrides: tuple[str, ...] = ()
    source: str = ""
    remark: str = ""

    @model_validator(mode="after")
    def _model_or_source(self) -> Self:
        if bool(self.model) == bool(self.source):
            raise ValueError(f"table {self.table}, {self.label}: expected either a model or a source")
        return self

    @property
    def key(self) -> str:
        """The name by which claims and users refer to the row."""
        return f"{self.table} {self.label}"

    @property
    def network(self) -> Network | None:
        """What is trained for the row; None for a quoted result."""
        return Network(self.model, tuple(sorted(self.kwargs.items())), self.overrides) if self.model else None


class PaperTable(StrictModel):
    """A table of the paper."""

    number: str
    title: str
    num_classes: int  # classes of its dataset


class Claim(StrictModel):
    """A conclusion of the paper: one row has a higher accuracy than each of its baselines, all given by their keys."""

    text: str
    row: str
    baselines: tuple[str, ...]


class Paper(StrictModel):
    """The content of paper_tables.toml. Rows of unknown tables and claims about unknown rows raise ValueError."""

    table: tuple[PaperTable, ...]
    row: tuple[Row, ...]
    claim: tuple[Claim, ...] = ()

    def select(self, requested: Sequence[str], tables: Sequence[str]) -> tuple[Row, ...]:
        """Return the requested rows of some tables, or all of their rows if nothing is requested.

        Args:
            requested: Numbers of tables and keys of rows.
            tables: Numbers of the tables to select from.

        Raises:
            UserError: A name is neither a table nor a row of these tables.
        """
        rows = [row for row in self.row if row.table in tables]
        names = [*tables, *(row.key for row in rows if row.network)]
        for name in requested:
            if name not in names:
                raise UserError(f"this preset has no table or row {name!r}; {nearest(name, names)}")
        return tuple(row for row in rows if not requested or row.table in requested or row.key in requested)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        keys, numbers = [row.key for row in self.row], {table.number for table in self.table}
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"duplicate row {repeated}")
        if lost := next((row.key for row in self.row if row.table not in numbers), None):
            raise ValueError(f"row {lost} is in no table")
        trained = {row.key for row in self.row if row.network}
        for claim in self.claim:
            if unknown := {claim.row, *claim.baselines} - trained:
                raise ValueError(f"claim {claim.text!r}: no row with a model has the name {min(unknown)!r}")
        return self


class Preset(StrictModel):
    """Dataset, input size and recipe to reproduce tables with; presets.toml describes the keys."""

    name: str
    title: str
    tables: tuple[str, ...]
    recipe: str
    overrides: tuple[str, ...]
    recipe_overrides: tuple[str, ...]
    notes: tuple[str, ...]


@cache
def read_paper() -> Paper:
    """Return the tables and claims of the paper."""
    return Paper.model_validate(tomllib.loads(_read("paper_tables.toml")))


def read_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        UserError: There is no such preset; the message names similar ones.
    """
    presets = tomllib.loads(_read("presets.toml"))
    if name not in presets:
        raise UserError(f"no preset {name!r}; {nearest(name, presets)}")
    return Preset.model_validate({"name": name, **presets[name]})


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return list(tomllib.loads(_read("presets.toml")))


def _read(name: str) -> str:
    return (resources.files("msfnet.experiments") / name).read_text("utf-8")


# Plans


@dataclass(frozen=True)
class Plan:
    """Rows of the paper to reproduce with a preset.

    Args:
        preset: Dataset, input size and recipe.
        requested: The tables and rows as the user named them.
        tables: The tables of the rows.
        rows: What to reproduce.
        claims: The claims about these rows only.
        recipe: Name of the recipe, the preset's or another one.
        overrides: Recipe keys that the user sets, `table.key=value` each.
        n_seeds: Runs of each network.
    """

    preset: Preset
    requested: tuple[str, ...]
    tables: tuple[PaperTable, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    recipe: str
    overrides: tuple[str, ...]
    n_seeds: int

    @property
    def name(self) -> str:
        """The name of files and folders: the preset's, with the recipe's unless that is the preset's own."""
        is_own = self.recipe == self.preset.recipe
        return self.preset.name if is_own else f"{self.preset.name}-{Path(self.recipe).stem}"

    @property
    def networks(self) -> list[Network]:
        """The networks to train, in the order of the rows."""
        return list(dict.fromkeys(row.network for row in self.rows if row.network))

    def recipe_of(self, network: Network) -> Recipe:
        """Return the recipe that a network is trained with.

        Raises:
            UserError: A key is unknown or a value is invalid.
        """
        preset = self.preset
        own = preset.recipe_overrides if self.recipe == preset.recipe else ()
        return load_recipe(self.recipe, [*network.all_overrides, *preset.overrides, *own, *self.overrides])

    def runs_of(self, network: Network) -> list[PlannedRun]:
        """Return the runs of a network, one for each seed, starting with the recipe's own."""
        recipe = self.recipe_of(network)
        seeds = range(recipe.train.seed, recipe.train.seed + self.n_seeds)
        return [PlannedRun(f"{network.name}-seed{seed}", change(recipe, [f"train.seed={seed}"])) for seed in seeds]

    def runs(self) -> list[PlannedRun]:
        """Return all runs, one seed of every network before the next seed, so that every row has a result early."""
        return [run for of_seed in zip(*map(self.runs_of, self.networks), strict=True) for run in of_seed]


def make_plan(
    paper: Paper,
    preset: Preset,
    requested: Sequence[str],
    recipe: str | None,
    overrides: Sequence[str],
    n_seeds: int,
) -> Plan:
    """Plan the reproduction of tables and rows, with the claims about them.

    Args:
        paper: Tables and claims.
        preset: Dataset, input size and recipe.
        requested: Numbers of tables and keys of rows; everything in the preset if empty.
        recipe: Name or file of another recipe than the preset's; None for the preset's.
        overrides: Recipe keys for all runs, `table.key=value` each.
        n_seeds: Runs of each network.

    Raises:
        UserError: The preset has no such table or row, a recipe key is invalid, or there is less than one seed.
    """
    if n_seeds < 1:
        raise UserError(f"expected --seeds of 1 or more, found {n_seeds}")
    rows = paper.select(requested, preset.tables)
    keys = {row.key for row in rows}
    plan = Plan(
        preset=preset,
        requested=tuple(requested) or preset.tables,
        tables=tuple(table for table in paper.table if table.number in {row.table for row in rows}),
        rows=rows,
        claims=tuple(claim for claim in paper.claim if keys >= {claim.row, *claim.baselines}),
        recipe=recipe or preset.recipe,
        overrides=tuple(overrides),
        n_seeds=n_seeds,
    )
    plan.recipe_of(plan.networks[0])  # refuse invalid keys before anything is read or trained
    return plan
