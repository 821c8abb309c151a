"""The paper's tables, claims and the scales to try them at, read from the TOML files beside this one and checked.

Knows names and numbers only: no network is made and no run is read here.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

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
    arguments: tuple[tuple[str, Any], ...]
    sets: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its run folders are called, before the seed."""
        return "_".join([self.model, *(f"{key}={_toml(value)}" for key, value in self.arguments)])

    @property
    def overrides(self) -> list[str]:
        """Of a recipe, `table.key=value` each."""
        own = [f"model.arguments.{key}={_toml(value)}" for key, value in self.arguments]
        return [f"model.name={self.model}", *own, *self.sets]


class Row(Checked):
    """A line of a table: either a network of ours, by `model`, or quoted from a `source`."""

    table: str
    label: str
    printed: Printed
    model: str = ""
    arguments: dict[str, Any] = {}
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
        return Network(self.model, tuple(sorted(self.arguments.items())), self.sets) if self.model else None


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
    return Paper.model_validate(tomllib.loads(_shipped("tables.toml")))


def read_scale(name: str) -> Scale:
    """A scale by name. Raises UserError for one that there is not, with the nearest."""
    scales = tomllib.loads(_shipped("scales.toml"))
    if name not in scales:
        raise UserError(f"no scale {name!r}; {nearest(name, scales)}")
    return Scale.model_validate({"name": name, **scales[name]})


def scale_names() -> list[str]:
    return list(tomllib.loads(_shipped("scales.toml")))


def _shipped(name: str) -> str:
    return (resources.files("msfnet") / "reproduce" / name).read_text("utf-8")


def _toml(value: Any) -> str:
    """A number, a boolean or a text as TOML has it, which for these is as JSON has it."""
    return json.dumps(value)
