"""Results as a page, in HTML and Markdown alike, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from msfnet.atomic_io import write_text
from msfnet.experiments.claims import SIGNIFICANT, Difference, Tried
from msfnet.experiments.paper import PaperTable, Plan
from msfnet.experiments.paper_results import Record, Results, RowResult, to_text
from msfnet.recipe import load_recipe
from msfnet.report import INK, TRAIN_COLOR, VAL_COLOR, Section, Table, plot_curves, write_page

NONE, MOST_NAMES = "–", 12
ASIDE = (
    "model.name",
    "model.kwargs",
    "train.seed",
    "data.num_workers",
    "data.cache",
    "train.loggers",
)  # told elsewhere
LEAD = (
    "From whatever runs are finished. Parameters and multiply-adds are counted at the paper's size. Top-1 is of "
    "videos, in %, mean ± standard deviation over seeds; where the scale is another than the paper's, so are networks "
    "and videos: compare rows with each other, not with the paper."
)


def write_results(results: Results, out: Path) -> list[Path]:
    """results-NAME.json, .runs.json, .md and .html in `out`; returns where they are."""
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"results-{results.plan.name}"
    rows = [row.to_dict() for row in results.rows]
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "runs.json", "md", "html")]
    write_text(files[0], json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    write_text(files[1], to_text(results.finished))
    title, tiles, sections = f"The paper's tables: {results.plan.scale.title}", _tiles(results), make_sections(results)
    write_text(files[2], to_markdown(title, tiles, sections))
    write_page(files[3], title, tiles, sections)
    return files


def make_sections(results: Results) -> list[Section]:
    """The page from top to bottom."""
    return [
        Section("What was run", LEAD, rows=_facts(results)),
        *_claims(results.claims),
        *(
            _table(table, [row for row in results.rows if row.row.table == table.number])
            for table in results.plan.tables
        ),
        *_pictures(results),
        _different(results),
        *_convergence(results),
        *_missing(results.missing),
    ]


def _missing(names: Sequence[str]) -> list[Section]:
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [Section("Not finished", ", ".join(names[:MOST_NAMES]) + more)]


def to_markdown(title: str, tiles: dict[str, str], sections: Sequence[Section]) -> str:
    """The page without its pictures."""
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
    verdicts = [tried.verdict for tried in results.claims]
    return {
        "finished runs": f"{n_runs} of {n_runs + len(results.missing)}",
        "claims that held": f"{verdicts.count('held')} of {len(verdicts)}",
        "did not hold": str(verdicts.count("did not hold")),
        "not decided": str(verdicts.count("not decided")),
    }


# What was run


def _command(plan: Plan) -> str:
    asked = " ".join(f"'{name}'" if " " in name else name for name in plan.asked)
    own = "" if plan.recipe == plan.scale.recipe else f" --recipe {plan.recipe}"
    sets = "".join(f" --set '{item}'" for item in plan.sets)
    return f"msfnet reproduce {asked} --preset {plan.scale.name}{own}{sets} --seeds {plan.n_seeds}"


def _facts(results: Results) -> dict[str, str]:
    runs, command = results.finished, {"command": _command(results.plan)}
    if not runs:
        return command
    parts = ", ".join(f"{n} {name}" for name, n in runs[0].n_videos.items())
    environments = [run.environment for run in runs]
    minutes = sorted(run.minutes for run in runs)
    return command | {
        "videos": f"{runs[0].n_classes} classes; {parts}",
        "recipe": results.plan.recipe,
        "scored over": f"{runs[0].recipe.clip.views} views of a video",
        "minutes of training": f"{minutes[0]:.0f} to {minutes[-1]:.0f} a run",
        "machine": "; ".join(_each(environments, _machine)),
        "commit": ", ".join(_each(environments, lambda environment: str(environment.get("commit") or NONE))),
    }


def _machine(environment: Mapping[str, Any]) -> str:
    cpus = f"{environment.get('threads')} of {environment.get('cpus')} CPUs ({environment.get('processor')})"
    return f"{', '.join(environment.get('gpus', [])) or cpus} a run, torch {environment.get('torch')}"


def _each(values: Iterable[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> list[str]:
    return list(dict.fromkeys(map(text, values)))


# Claims


def _claims(claims: Sequence[Tried]) -> list[Section]:
    if not claims:
        return []
    verdicts = [(tried.claim.text, tried.verdict, tried.reading) for tried in claims]
    lead = (
        "A claim held if its network is better than each that it is set against, and did not hold if it is worse "
        f"than one, by the test over videos (p below {SIGNIFICANT:g}) and by the interval. Else the runs do not decide."
    )
    rows = [
        (tried.claim.better, key, f"{tried.printed[key]:+.1f}", *_difference(difference))
        for tried in claims
        for key, difference in tried.differences.items()
    ]
    columns = ("row", "against", "paper", "here", "95 %", "videos", "groups", "runs", "p", "p, Holm")
    about = (
        "In points of top-1. The test flips, video by video, which network has more of its runs correct (exact; with one "
        "run each it is McNemar's); Holm's p is corrected for the number of lines that have a run. The test takes each "
        "video for a find of its own, but those of one group (a person, a place) are alike. The interval knows: it "
        "draws groups and runs anew (bootstrap). Of a network with one run the luck of training is not in it."
    )
    return [
        Section("Did the paper's claims hold?", lead, table=Table(("claim", "here", "why"), verdicts)),
        Section("Differences", about, table=Table(columns, rows)),
    ]


def _difference(found: Difference | None) -> tuple[str, ...]:
    if not found:
        return (NONE,) * 7
    runs = " and ".join(map(str, found.n_runs))
    interval = f"{found.low:+.1f} to {found.high:+.1f}"
    counts = (str(found.n_videos), str(found.n_groups), runs)
    return f"{found.points:+.1f}", interval, *counts, _p(found.p), _p(found.p_corrected)


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


# Tables


def _table(table: PaperTable, rows: Sequence[RowResult]) -> Section:
    columns = ("row", "M params", "paper", "GMACs", "paper", "top-1 in the paper", "top-1 here", "runs", "each", "note")
    lead = f"Parameters are for {table.classes} classes."
    return Section(f"Table {table.number}: {table.title}", lead, table=Table(columns, [_cells(row) for row in rows]))


def _cells(result: RowResult) -> tuple[str, ...]:
    row, counted = result.row, result.counted
    return (
        row.label,
        f"{counted.params / 1e6:.3f}" if counted else NONE,
        row.printed.params or NONE,
        f"{counted.macs / 1e9:.2f}" if counted else NONE,
        row.printed.gmacs or NONE,
        row.printed.top1,
        _mean(result),
        str(len(result.runs)) if counted else NONE,
        ", ".join(f"{top1:.1f}" for top1 in result.top1) or NONE,
        row.remark or (f"quoted from {row.source}" if row.source else ""),
    )


def _mean(result: RowResult) -> str:
    if result.mean is None:
        return NONE
    return f"{result.mean:.1f}" + (f" ± {result.spread:.1f}" if result.spread is not None else "")


def _pictures(results: Results) -> list[Section]:
    done = [row for row in results.rows if row.runs]
    if not done:
        return []
    curves = {network.name: runs[0].history for network, runs in results.runs.items() if runs}
    about = "Pale diamonds: the paper. Dots: the runs here; strokes: their mean."
    return [
        Section("Paper and here", about, figure=plot_rows(done)),
        Section("Learning", "The first run of each network.", figure=plot_curves(curves)),
    ]


def plot_rows(rows: Sequence[RowResult]) -> Figure:
    """A line of dots for each row: the paper's top-1, and that of each run."""
    figure = Figure(figsize=(9, 1 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, result in enumerate(rows):
        axes.plot(float(result.row.printed.top1), height, "D", color=TRAIN_COLOR)
        axes.plot(result.top1, [height] * len(result.top1), ".", color=VAL_COLOR)
        axes.plot([np.mean(result.top1)], [height], "|", color=INK, markersize=14)
    axes.set_yticks(range(len(rows)), [result.row.key for result in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1, %")
    axes.spines[["top", "correct"]].set_visible(False)
    return figure


# What was different, and whether it was trained long enough


def _different(results: Results) -> Section:
    plan = results.plan
    paper = load_recipe("paper").flat()
    here = plan.recipe_of(plan.networks[0]).flat()
    keys = [key for key in paper | here if not key.startswith(ASIDE) and paper.get(key) != here.get(key)]
    rows = [(key, _value(paper.get(key)), _value(here.get(key))) for key in keys]
    table = Table(("recipe key", "recipe paper", "here"), rows) if rows else None
    return Section("What was different", " ".join(plan.scale.differs), table=table)


def _value(value: Any) -> str:
    return NONE if value is None else str(value)


def _convergence(results: Results) -> list[Section]:
    rows = [(network.name, *_learned(runs)) for network, runs in results.runs.items() if runs]
    if not rows:
        return []
    columns = (
        "network",
        "first epoch",
        "three quarters",
        "last epoch",
        "training top-1",
        "GMACs here",
        "M params here",
    )
    lead = (
        "Training loss after the first epoch, three quarters of them and the last, and top-1; means over runs. A loss "
        "that still falls in the last quarter says that the network has not converged."
    )
    return [Section("Did they converge?", lead, table=Table(columns, rows))]


def _learned(runs: Sequence[Record]) -> tuple[str, ...]:
    def mean(key: str, place: float) -> float:
        return sum(run.history[round(place * (len(run.history) - 1))][key] for run in runs) / len(runs)

    losses = (f"{mean('train_loss', place):.3f}" for place in (0, 0.75, 1))
    size = runs[0].summary
    return *losses, f"{mean('train_top1', 1):.1%}", f"{size.macs / 1e9:.3f}", f"{size.params / 1e6:.3f}"
