"""From rows, a scale and a recipe to runs: what each network is trained with, and what its run folders are called.

Pure: nothing is trained or read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.recipe import Recipe, change, load_recipe
from msfnet.reproduce.tables import Claim, Network, Paper, PaperTable, Row, Scale
from msfnet.sweep.trials import Run
from msfnet.types import UserError


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
