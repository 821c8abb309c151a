"""The results of a reproduction as a page in HTML and Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from msfnet.atomic_io import write_text
from msfnet.experiments.claims import ClaimResult, Difference
from msfnet.experiments.compare_page import p_text
from msfnet.experiments.paper import PaperTable, Plan
from msfnet.experiments.paper_results import Results, RowResult
from msfnet.experiments.records import RunRecord, to_json
from msfnet.metrics import SIGNIFICANCE_LEVEL
from msfnet.recipe import differing_keys, load_recipe
from msfnet.report import INK, TRAIN_COLOR, VAL_COLOR, Section, Table, plot_curves, write_page

NONE, MOST_NAMES = "–", 12
# Recipe keys that the section on differences leaves out: they are shown elsewhere or do not affect results.
OTHER_KEYS = ("model.name", "model.kwargs", "train.seed", "data.num_workers", "data.cache", "train.loggers")
LEAD = (
    "This page shows the runs that have finished. Parameters and multiply-adds are counted at the paper's input size. "
    "Top-1 is video accuracy in %, mean ± sample standard deviation over seeds. With a preset other than the paper's, "
    "networks and videos differ from the paper's: compare rows with each other, not with the paper."
)


def write_results(results: Results, out: Path) -> list[Path]:
    """Write the results of a reproduction.

    Args:
        results: Rows, claims and runs.
        out: Folder for the files, which is created.

    Returns:
        The files results-NAME.json, .runs.json, .md and .html.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"results-{results.plan.name}"
    rows = [row.to_dict() for row in results.rows]
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "runs.json", "md", "html")]
    write_text(files[0], json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    write_text(files[1], to_json(results.finished))
    title, tiles = f"The paper's tables: {results.plan.preset.title}", _tiles(results)
    sections = make_sections(results)
    write_text(files[2], to_markdown(title, tiles, sections))
    write_page(files[3], title, tiles, sections)
    return files


def make_sections(results: Results) -> list[Section]:
    """Return the sections of the page from top to bottom."""
    return [
        Section("Setup", LEAD, rows=_facts(results)),
        *_claim_sections(results.claims),
        *(
            _table_section(table, [row for row in results.rows if row.row.table == table.number])
            for table in results.plan.tables
        ),
        *_plot_sections(results),
        _recipe_section(results.plan),
        *_convergence_sections(results),
        *_missing_sections(results.missing),
    ]


def to_markdown(title: str, tiles: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the page as Markdown, without its plots.

    Args:
        title: The first heading.
        tiles: The most important numbers: name -> value.
        sections: The rest of the page.
    """
    lines = [f"# {title}", "", ", ".join(f"{name}: {value}" for name, value in tiles.items())]
    for section in sections:
        table = section.table or (Table(("", ""), list(section.rows.items())) if section.rows else None)
        if section.figure or not (section.lead or table):
            continue
        lines += ["", f"## {section.title}"]
        lines += ["", section.lead] if section.lead else []
        if table:
            lines += ["", _markdown_row(table.columns), "|" + "---|" * len(table.columns)]
            lines += [_markdown_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tiles(results: Results) -> dict[str, str]:
    n_runs = len(results.finished)
    verdicts = [claim.verdict for claim in results.claims]
    return {
        "finished runs": f"{n_runs} of {n_runs + len(results.missing)}",
        "claims supported": f"{verdicts.count('supported')} of {len(verdicts)}",
        "claims contradicted": str(verdicts.count("contradicted")),
        "claims inconclusive": str(verdicts.count("inconclusive")),
    }


# Setup


def _facts(results: Results) -> dict[str, str]:
    runs, facts = results.finished, {"command": _command(results.plan)}
    if not runs:
        return facts
    counts = ", ".join(f"{n} {split}" for split, n in runs[0].n_videos.items())
    environments = [run.environment for run in runs]
    minutes = [run.minutes for run in runs]
    return facts | {
        "videos": f"{runs[0].num_classes} classes; {counts}",
        "recipe": results.plan.recipe,
        "views per video": runs[0].recipe.clip.views,
        "training time": f"{min(minutes):.0f} to {max(minutes):.0f} minutes per run",
        "machine": "; ".join(_distinct(environments, _machine)),
        "commit": ", ".join(_distinct(environments, lambda environment: str(environment.get("commit") or NONE))),
    }


def _command(plan: Plan) -> str:
    requested = " ".join(f"'{name}'" if " " in name else name for name in plan.requested)
    recipe = "" if plan.recipe == plan.preset.recipe else f" --recipe {plan.recipe}"
    overrides = "".join(f" --set '{override}'" for override in plan.overrides)
    return f"msfnet reproduce {requested} --preset {plan.preset.name}{recipe}{overrides} --seeds {plan.n_seeds}"


def _machine(environment: Mapping[str, Any]) -> str:
    cpus = f"{environment.get('threads')} of {environment.get('cpus')} CPUs ({environment.get('processor')})"
    return f"{', '.join(environment.get('gpus', [])) or cpus} per run, torch {environment.get('torch')}"


def _distinct(environments: Iterable[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> list[str]:
    return list(dict.fromkeys(map(text, environments)))


# Claims


def _claim_sections(claims: Sequence[ClaimResult]) -> list[Section]:
    if not claims:
        return []
    verdicts = [(claim.claim.text, claim.verdict, claim.explanation) for claim in claims]
    lead = (
        "A claim is supported if its row is significantly better than each of the rows it is compared with, "
        "contradicted if it is significantly worse than one of them, and inconclusive otherwise. A difference is "
        f"significant if the corrected p-value is below {SIGNIFICANCE_LEVEL:g} and the 95% confidence interval does "
        "not contain zero."
    )
    rows = [
        (claim.claim.row, key, f"{claim.paper_points[key]:+.1f}", *_difference_cells(difference))
        for claim in claims
        for key, difference in claim.differences.items()
    ]
    columns = ("row", "compared with", "paper", "here", "95% CI", "videos", "groups", "runs", "p", "p (Holm)")
    about = (
        "Differences in top-1, in percentage points. p is that of the exact sign-flip test over videos, which with one "
        "run of each network is McNemar's test; p (Holm) is corrected for the number of comparisons that have runs. "
        "The test treats videos as independent, although videos of one group (a person, a place) are correlated. The "
        "confidence interval accounts for that: it resamples groups and runs (bootstrap). With a single run of a "
        "network it does not include the variance between seeds."
    )
    return [
        Section("Claims of the paper", lead, table=Table(("claim", "verdict", "differences"), verdicts)),
        Section("Differences between networks", about, table=Table(columns, rows)),
    ]


def _difference_cells(difference: Difference | None) -> tuple[str, ...]:
    if not difference:
        return (NONE,) * 7
    return (
        f"{difference.points:+.1f}",
        f"{difference.low:+.1f} to {difference.high:+.1f}",
        str(difference.n_videos),
        str(difference.n_groups),
        " and ".join(map(str, difference.n_runs)),
        p_text(difference.p),
        p_text(difference.p_corrected),
    )


# Tables


def _table_section(table: PaperTable, rows: Sequence[RowResult]) -> Section:
    columns = (
        *("row", "M parameters", "paper", "GMACs", "paper", "top-1 in the paper", "top-1 here", "runs"),
        *("top-1 of each run", "note"),
    )
    lead = f"Parameters are for {table.num_classes} classes."
    return Section(
        f"Table {table.number}: {table.title}", lead, table=Table(columns, [_row_cells(row) for row in rows])
    )


def _row_cells(result: RowResult) -> tuple[str, ...]:
    row, model = result.row, result.full_size
    return (
        row.label,
        f"{model.params / 1e6:.3f}" if model else NONE,
        row.printed.params or NONE,
        f"{model.macs / 1e9:.2f}" if model else NONE,
        row.printed.gmacs or NONE,
        row.printed.top1,
        _mean_and_std(result),
        str(len(result.runs)) if model else NONE,
        ", ".join(f"{top1:.1f}" for top1 in result.top1) or NONE,
        row.remark or (f"quoted from {row.source}" if row.source else ""),
    )


def _mean_and_std(result: RowResult) -> str:
    if result.mean is None:
        return NONE
    return f"{result.mean:.1f}" + (f" ± {result.std:.1f}" if result.std is not None else "")


# Plots


def _plot_sections(results: Results) -> list[Section]:
    rows = [row for row in results.rows if row.runs]
    if not rows:
        return []
    curves = {network.name: runs[0].history for network, runs in results.runs.items() if runs}
    about = "Diamonds are the paper's top-1, dots our runs, and strokes their mean."
    return [
        Section("Top-1 in the paper and here", about, figure=plot_rows(rows)),
        Section("Training curves", "The first run of each network.", figure=plot_curves(curves)),
    ]


def plot_rows(rows: Sequence[RowResult]) -> Figure:
    """Plot the top-1 of each row: the paper's, that of each run, and the mean of runs."""
    figure = Figure(figsize=(9, 1 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, result in enumerate(rows):
        axes.plot(float(result.row.printed.top1), height, "D", color=TRAIN_COLOR)
        axes.plot(result.top1, [height] * len(result.top1), ".", color=VAL_COLOR)
        axes.plot([np.mean(result.top1)], [height], "|", color=INK, markersize=14)
    axes.set_yticks(range(len(rows)), [result.row.key for result in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# Recipe and convergence


def _recipe_section(plan: Plan) -> Section:
    recipes = (load_recipe("paper"), plan.recipe_of(plan.networks[0]))
    paper, here = (recipe.flat() for recipe in recipes)
    keys = [key for key in differing_keys(recipes) if not key.startswith(OTHER_KEYS)]
    rows = [(key, _value(paper.get(key)), _value(here.get(key))) for key in keys]
    table = Table(("recipe key", "recipe paper", "here"), rows) if rows else None
    return Section("Differences from the paper's setup", " ".join(plan.preset.notes), table=table)


def _value(value: Any) -> str:
    return NONE if value is None else str(value)


def _convergence_sections(results: Results) -> list[Section]:
    rows = [(network.name, *_convergence_cells(runs)) for network, runs in results.runs.items() if runs]
    if not rows:
        return []
    columns = (
        *("network", "loss, first epoch", "loss, three quarters", "loss, last epoch", "training top-1"),
        *("GMACs here", "M parameters here"),
    )
    lead = (
        "Training loss after the first epoch, after three quarters of the epochs and after the last one, and training "
        "top-1 after the last one; means over runs. A loss that still falls in the last quarter indicates that the "
        "network has not converged. GMACs and parameters are those of the network as trained here."
    )
    return [Section("Convergence", lead, table=Table(columns, rows))]


def _convergence_cells(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    def mean(column: str, part: float) -> float:
        return sum(run.history[round(part * (len(run.history) - 1))][column] for run in runs) / len(runs)

    losses = (f"{mean('train_loss', part):.3f}" for part in (0, 0.75, 1))
    model = runs[0].model
    return *losses, f"{mean('train_top1', 1):.1%}", f"{model.macs / 1e9:.3f}", f"{model.params / 1e6:.3f}"


def _missing_sections(names: Sequence[str]) -> list[Section]:
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [Section("Unfinished runs", ", ".join(names[:MOST_NAMES]) + more)]
