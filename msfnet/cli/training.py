"""Commands that train, and that compare what was trained."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from msfnet.cli.app import (
    Annotations,
    CpusPerTrial,
    DataOrShards,
    GpusPerTrial,
    Json,
    RayAddress,
    Split,
    app,
    log,
)
from msfnet.types import UserError


@app.command
def demo(*, out: Path = Path("demo")) -> int:
    """See the whole job in minutes: make videos, train on them, evaluate, predict, draw OUT/report.html."""
    from msfnet.demo import run_demo

    print(run_demo(out))
    return 0


@app.command
def train(
    data: DataOrShards,
    *,
    recipe: Annotated[str, Parameter(help="A shipped recipe (best, paper, small) or a TOML file.")] = "small",
    model: Annotated[str | None, Parameter(help="Network, as --set model.name=...")] = None,
    annotations: Annotations = None,
    split: Split = 1,
    out: Annotated[Path | None, Parameter(help="Run folder; default: runs/MODEL, numbered.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    resume: Annotated[bool, Parameter(negative=(), help="Go on with the run that lies in --out.")] = False,
) -> int:
    """Train a network; leaves a run folder with the best weights and a report."""
    from msfnet import distributed
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.recipe import load_recipe
    from msfnet.training import trainer
    from msfnet.training.history import resume_hint

    overrides = [*set_, *([f"model.name={model}"] if model else [])]
    if resume and (out is None or overrides):
        raise UserError(
            "--resume needs --out DIR, the run to go on with, and takes its recipe as it is: no --set, --model"
        )
    resolved = load_recipe(recipe, overrides)
    folder = out or trainer.new_run_folder(resolved.model.name)
    try:
        if resume:
            result = trainer.resume(folder)
        else:
            found = read_dataset(data, annotations, split)
            result = trainer.train(found, resolved, folder)
    except KeyboardInterrupt as stop:
        if distributed.rank() == 0:
            log.info(resume_hint(stop, data, folder))
        return 128 + getattr(stop, "signal_number", signal.SIGINT)
    if distributed.rank():  # the first of several says it for all
        return 0
    print(result.folder)
    return 1 if result.problems else 0


@app.command
def sweep(
    data: DataOrShards,
    *,
    out: Annotated[Path, Parameter(help="Folder for the run folders and the ranking. Started again, it goes on.")],
    recipe: Annotated[
        str, Parameter(help="The recipe that is varied: shipped (best, paper, small) or a TOML file.")
    ] = "small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value in all trials.")] = (),
    grid: Annotated[tuple[str, ...], Parameter(help="table.key=value,value,...: every combination is a trial.")] = (),
    sample: Annotated[
        tuple[str, ...],
        Parameter(help="table.key=LOW..HIGH (log-uniform), =linear:LOW..HIGH or =value,value,...: drawn."),
    ] = (),
    num_samples: Annotated[int | None, Parameter(help="How many times --sample keys are drawn.")] = None,
    seeds: Annotated[int, Parameter(help="Runs of each trial.")] = 1,
    annotations: Annotations = None,
    split: Split = 1,
    ray_address: RayAddress = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    as_json: Json = False,
) -> int:
    """Train a recipe with many values and seeds, side by side; rank them on videos held out of training."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.experiments.cluster import Machines
    from msfnet.experiments.sweep import plan_trials, run_sweep
    from msfnet.recipe import load_recipe

    machines, resolved = Machines(ray_address, cpus_per_trial, gpus_per_trial), load_recipe(recipe, set_)
    planned = plan_trials(resolved, grid, sample, num_samples)
    found = read_dataset(data, annotations, split)
    try:
        result = run_sweep(found, resolved, planned, seeds, out, machines)
    except KeyboardInterrupt:
        log.info("stopped; the same command goes on")
        return 1
    for path, reason in result.problems.items():
        log.info(f"could not be read: {path}: {reason}")
    for name, reason in result.failed.items():
        log.info(f"failed: {name}: {reason}")
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if as_json else result.to_text())
    return 1 if result.failed or result.problems else 0


@app.command
def reproduce(
    tables: Annotated[
        tuple[str, ...],
        Parameter(help="Tables of the paper (1 2 3 4 5), or rows ('5 MSF-R3D'); default: all of the scale."),
    ] = (),
    /,
    *,
    data: Annotated[str | None, Parameter(help="The videos: as DATA of msfnet train.")] = None,
    preset: Annotated[str, Parameter(help="ucf101, ucf101-18, ucf101-18-small or kinetics400.")] = "ucf101",
    annotations: Annotations = None,
    split: Split = 1,
    seeds: Annotated[int, Parameter(help="Runs of each row.")] = 3,
    recipe: Annotated[str | None, Parameter(help="Another recipe than the scale's, at the scale's size.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value in all runs.")] = (),
    out: Annotated[Path, Parameter(help="Folder for results-SCALE.json, .runs.json, .md and .html.")] = Path(
        "reproduce"
    ),
    runs_dir: Annotated[
        Path | None, Parameter(help="Folder for the run folders; default: runs/reproduce-SCALE.")
    ] = None,
    merge_runs: Annotated[
        tuple[Path, ...], Parameter(help="Files results-SCALE.runs.json of other machines, whose runs are done.")
    ] = (),
    report_only: Annotated[
        bool, Parameter(negative=(), help="Run nothing: write the page of what is finished.")
    ] = False,
    ray_address: RayAddress = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    as_json: Json = False,
) -> int:
    """Train and score the rows of the paper's tables, side by side; say which of its claims held. It goes on."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.experiments.cluster import Machines
    from msfnet.experiments.paper import make_plan, read_paper, read_scale
    from msfnet.experiments.paper_page import write_results
    from msfnet.experiments.paper_results import read_results
    from msfnet.experiments.reproduce import Reproduction, run_plan

    plan = make_plan(read_paper(), read_scale(preset), tables, recipe, set_, seeds)
    folder = runs_dir or Path("runs") / f"reproduce-{plan.name}"
    if report_only:
        done = Reproduction(read_results(plan, folder, merge_runs), {}, {})
    elif data is None:
        raise UserError("expected --data, the videos to train on; --report-only does without")
    else:
        machines = Machines(ray_address, cpus_per_trial, gpus_per_trial)
        found = read_dataset(data, annotations, split)
        try:
            done = run_plan(plan, found, folder, machines, merge_runs)
        except KeyboardInterrupt:
            write_results(read_results(plan, folder, merge_runs), out)
            log.info("stopped; the same command goes on")
            return 1
    for path, reason in done.problems.items():
        log.info(f"could not be read: {path}: {reason}")
    for name, reason in done.failed.items():
        log.info(f"failed: {name}: {reason}")
    files = write_results(done.results, out)
    print(json.dumps(done.results.to_dict(), indent=2, ensure_ascii=False) if as_json else files[-1])
    return 1 if done.failed or done.problems else 0


@app.command
def report(
    runs: Annotated[tuple[str, ...], Parameter(help="Run folders, or patterns of them.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Page to write; default: compare.html, RUN/report.html of one.")] = None,
    as_json: Json = False,
) -> int:
    """Compare runs on one page: what differs, scores, seeds, curves, classes. Of a single run, write its page anew."""
    from msfnet.experiments.compare_page import compare, write_comparison
    from msfnet.training.report import report_run

    if len(runs) == 1 and Path(runs[0]).is_dir() and not as_json:
        print(report_run(Path(runs[0]), out))
        return 0
    comparison, page = compare(runs), out or Path("compare.html")
    write_comparison(page, comparison)
    for folder, reason in comparison.skipped.items():
        log.info(f"left out: {folder}: {reason}")
    print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) if as_json else page)
    return 1 if comparison.skipped else 0
