"""Write the tables of the documentation from the code: python docs/tables.py. A test holds that they are up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

from msfnet.models.registry import list_models, summarise
from msfnet.recipe import Recipe
from msfnet.reproduce.tables import read_paper

DOCS = Path(__file__).parent

# What the paper prints of each network; Table 5, the last, corrects a misprint in Table 1.
PRINTED = {row.model: row.printed for row in read_paper().row if row.model}


def recipe_keys() -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, table in Recipe():
        for key, field in type(table).model_fields.items():
            default = json.dumps(getattr(table, key))
            rows.append(f"| `{name}.{key}` | {'' if default == 'null' else f'`{default}`'} | {field.description} |")
    return "\n".join(rows)


def sizes() -> str:
    rows = ["| name | M parameters | paper | GMACs | paper | input |", "|---|---|---|---|---|---|"]
    for name in list_models():
        summary = summarise(name)
        params, macs = (PRINTED[name].params, PRINTED[name].gmacs) if name in PRINTED else ("", "")
        shape = "x".join(map(str, summary.input))
        rows.append(
            f"| `{name}` | {summary.params / 1e6:.3f} | {params} | {summary.macs / 1e9:.2f} | {macs} | {shape} |"
        )
    return "\n".join(rows)


def ablation() -> str:
    """The table of rows that benchmarks/best.py wrote."""
    text = (DOCS.parent / "benchmarks" / "best.md").read_text(encoding="utf-8").partition("\n## ")[0]
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def speed() -> str:
    """The first table that benchmarks/speed.py wrote."""
    text = (DOCS.parent / "benchmarks" / "speed.md").read_text(encoding="utf-8").partition("\n## ")[0]
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


TABLES = {
    "recipes.md": ("recipe keys", recipe_keys),
    "networks.md": ("sizes", sizes),
    "best.md": ("ablation", ablation),
    "speed.md": ("speed", speed),
}


def filled(page: str) -> str:
    """A page's text with its table written anew."""
    name, make = TABLES[page]
    text = (DOCS / page).read_text(encoding="utf-8")
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{make()}\n{m[2]}", text, flags=re.S)


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(filled(page), encoding="utf-8")
