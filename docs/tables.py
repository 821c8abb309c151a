"""Write the tables of the documentation from the code: python docs/tables.py. A test holds that they are up to date."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from drawing import facts

from msfnet.experiments.paper import read_paper
from msfnet.models.registry import list_models, summarise
from msfnet.recipe import Recipe

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


def benchmark_table(page: str, heading: str = "") -> str:
    """A table that a page in benchmarks/ has, as its command wrote it: the first under a heading, or of the page."""
    text = (DOCS.parent / "benchmarks" / page).read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2]
    table = text.partition("\n|")[2].partition("\n\n")[0]
    return f"|{table.rstrip()}"


METHOD = ("r3d18", "msf_r3d18", "msf_r3d18_fsam", "c3d", "msf_c3d", "msf_c3d_fsam")


def method_sizes() -> str:
    """The paper's own networks and their baselines, with what the paper prints of them in Table 5."""
    rows = ["| network | M parameters | paper | GMACs | paper | top-1, paper |", "|---|---|---|---|---|---|"]
    for name in METHOD:
        summary, paper = summarise(name), PRINTED[name]
        rows.append(
            f"| `{name}` | {summary.params / 1e6:.3f} | {paper.params} | {summary.macs / 1e9:.2f} | {paper.gmacs} "
            f"| {paper.top1} % |"
        )
    return "\n".join(rows)


def method_reach() -> str:
    """Frames that each group of MSL's output sees, in MSL alone and in the block around it."""
    rows = ["| output of MSL | channels of 64 | frames seen in MSL | in the MSF block |", "|---|---|---|---|"]
    names = ("`x_1`", "`y_2`, first half", "`y_3`, first half", "`y_4`")
    pairs = zip(names, facts.msl_reaches(), facts.block_reaches("msf_r3d18"), strict=True)
    rows += [f"| {name} | {inner.channels} | {inner.frames} | {outer.frames} |" for name, inner, outer in pairs]
    return "\n".join(rows)


RESULTS = {"recipe `paper`": "results-ucf101-18-small", "recipe `best`": "results-ucf101-18-small-best"}


def reproduced() -> str:
    """Every row that was run: top-1 of the paper, and here under each recipe whose results are in benchmarks/."""
    files = {name: DOCS.parent / "benchmarks" / f"{stem}.json" for name, stem in RESULTS.items()}
    found = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}
    here: dict[tuple[str, str], dict[str, str]] = {}
    for name, rows in found.items():
        for row in rows:
            if row["n_seeds"]:
                cells = here.setdefault((row["table"], row["row"]), {"paper": f"{row['paper_top1']:.1f}"})
                spread = "" if row["top1_std"] is None else f" ± {row['top1_std']:.1f}"
                cells[name] = f"{row['top1_mean']:.1f}{spread} ({row['n_seeds']})"
    columns = ("paper", *found)
    lines = [f"| table | row | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for (table, row), cells in here.items():
        lines.append(f"| {table} | {row} | {' | '.join(cells.get(name, '') for name in columns)} |")
    return "\n".join(lines)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "recipes.md": {"recipe keys": recipe_keys},
    "networks.md": {"sizes": sizes},
    "best.md": {"ablation": partial(benchmark_table, "best.md")},
    "speed.md": {"speed": partial(benchmark_table, "speed.md")},
    "reproduction.md": {
        "rows": reproduced,
        "claims": partial(benchmark_table, "results-ucf101-18-small.md", "Did the paper's claims hold?"),
        "best claims": partial(benchmark_table, "results-ucf101-18-small-best.md", "Did the paper's claims hold?"),
        "attention": partial(benchmark_table, "attention.md"),
    },
    "method.md": {"sizes": method_sizes, "reach": method_reach},
}


def filled(page: str) -> str:
    """A page's text with its tables written anew."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in TABLES[page].items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(filled(page), encoding="utf-8")
