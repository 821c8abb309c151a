"""Commands that train: one run, or many that are compared; and pages of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from msfnet.cli.app import (
    DATA,
    Annotations,
    CpusPerTrial,
    DataPath,
    DeviceName,
    GpusPerTrial,
    Json,
    RayAddress,
    RecipeName,
    Settings,
    Split,
    app,
    finish,
    resumable,
    to_json,
)
from msfnet.types import UserError


@app.command
def demo(
    *, out: Annotated[Path, Parameter(help="Folder to write to.")] = Path("demo"), device: DeviceName = None
) -> int:
    """Run the whole pipeline in minutes: generate videos, train, evaluate, predict, write OUT/report.html."""
    from msfnet.demo import run_demo

    with resumable():
        return finish(run_demo(out, device))


@app.command(usage="Usage: msfnet train DATA [OPTIONS]\n       msfnet train --resume RUN [DATA]")
def train(
    data: Annotated[str | None, Parameter(help=DATA)] = None,
    /,
    *,
    recipe: Annotated[
        str | None, Parameter(help="A bundled recipe (best, paper, small) or a TOML file; default: small.")
    ] = None,
    model: Annotated[str | None, Parameter(help="Network, as --set model.name=NAME.")] = None,
    annotations: Annotations = None,
    split: Split = 1,
    groups: Annotated[
        str | None, Parameter(help="Regular expression: its first parenthesis, or match, in a path names the group.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Run folder; default: runs/MODEL, numbered.")] = None,
    set_: Settings = (),
    resume: Annotated[
        Path | None, Parameter(help="Run folder to resume, with its own recipe; DATA is needed only if it was moved.")
    ] = None,
    device: DeviceName = None,
) -> int:
    """Train a network; leaves a run folder with the best weights, their scores and a report."""
    from msfnet import api, distributed

    if resume is not None:
        given = {"--recipe": recipe, "--model": model, "--groups": groups, "--out": out, "--set": set_}
        if names := [name for name, value in given.items() if value]:
            raise UserError(f"expected --resume RUN without {names[0]}: the run is resumed as it was started")
        run = api.resume(resume, data, annotations=annotations, split=split, device=device)
    elif data is None:
        raise UserError("expected DATA to train on, or --resume RUN")
    else:
        run = api.train(
            data,
            recipe=recipe or "small",
            model=model,
            set=set_,
            annotations=annotations,
            split=split,
            groups=groups,
            out=out,
            device=device,
        )
    if distributed.rank():  # only the first process prints the result
        return 0
    print(run.folder)
    return 1 if run.unreadable else 0  # the videos are named already, with their consequences


@app.command
def sweep(
    data: DataPath,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for the run folders and the ranking.")],
    recipe: RecipeName = "small",
    set_: Settings = (),
    grid: Annotated[tuple[str, ...], Parameter(help="table.key=value,value,...: each combination is a trial.")] = (),
    sample: Annotated[
        tuple[str, ...],
        Parameter(help="table.key=LOW..HIGH (log-uniform), =linear:LOW..HIGH or =value,value,...: sampled at random."),
    ] = (),
    num_samples: Annotated[int | None, Parameter(help="Number of samples of the --sample keys.")] = None,
    seeds: Annotated[int, Parameter(help="Runs of each trial, with different seeds.")] = 1,
    annotations: Annotations = None,
    split: Split = 1,
    ray_address: RayAddress = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    as_json: Json = False,
) -> int:
    """Train a recipe with many values and seeds, and rank them on validation videos. The same command resumes."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.experiments.cluster import ClusterConfig
    from msfnet.experiments.sweep import plan_trials, run_sweep
    from msfnet.recipe import load_recipe

    cluster, settings = ClusterConfig(ray_address, cpus_per_trial, gpus_per_trial), load_recipe(recipe, set_)
    trials = plan_trials(settings, grid, sample, num_samples)
    with resumable():
        result = run_sweep(read_dataset(data, annotations, split), settings, trials, seeds, out, cluster)
    text = to_json(result.to_dict()) if as_json else result.to_text()
    return finish(text, unreadable=result.unreadable, failed=result.failed)


@app.command
def reproduce(
    tables: Annotated[
        tuple[str, ...],
        Parameter(help="Tables of the paper (1 2 3 4 5) or rows ('5 MSF-R3D'); default: all of the preset."),
    ] = (),
    /,
    *,
    data: Annotated[str | None, Parameter(help="Videos to train on, as DATA for train.")] = None,
    preset: Annotated[str, Parameter(help="ucf101, ucf101-18, ucf101-18-small or kinetics400.")] = "ucf101",
    annotations: Annotations = None,
    split: Split = 1,
    seeds: Annotated[int, Parameter(help="Runs of each row, with different seeds.")] = 3,
    recipe: Annotated[str | None, Parameter(help="Another recipe than the preset's, at the preset's size.")] = None,
    set_: Settings = (),
    out: Annotated[Path, Parameter(help="Folder for results-PRESET.json, .runs.json, .md and .html.")] = Path(
        "reproduce"
    ),
    runs_dir: Annotated[
        Path | None, Parameter(help="Folder for the run folders; default: runs/reproduce-PRESET.")
    ] = None,
    merge_runs: Annotated[
        tuple[Path, ...], Parameter(help="Files results-PRESET.runs.json of other machines, to add their runs.")
    ] = (),
    report_only: Annotated[bool, Parameter(help="Train nothing; write the page of the finished runs.")] = False,
    ray_address: RayAddress = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    as_json: Json = False,
) -> int:
    """Train and score the rows of the paper's tables, and test its claims. The same command resumes."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.experiments.cluster import ClusterConfig
    from msfnet.experiments.paper import make_plan, read_paper, read_preset
    from msfnet.experiments.paper_page import write_results
    from msfnet.experiments.paper_results import read_results
    from msfnet.experiments.reproduce import Reproduction, run_plan

    plan = make_plan(read_paper(), read_preset(preset), tables, recipe, set_, seeds)
    folder = runs_dir or Path("runs") / f"reproduce-{plan.name}"
    if report_only:
        done = Reproduction(read_results(plan, folder, merge_runs), {}, {})
    elif data is None:
        raise UserError("expected --data, the videos to train on, or --report-only")
    else:
        cluster, dataset = (
            ClusterConfig(ray_address, cpus_per_trial, gpus_per_trial),
            read_dataset(data, annotations, split),
        )
        with resumable():
            try:
                done = run_plan(plan, dataset, folder, cluster, merge_runs)
            except KeyboardInterrupt:
                write_results(read_results(plan, folder, merge_runs), out)
                raise
    files = write_results(done.results, out)
    text = to_json(done.results.to_dict()) if as_json else files[-1]
    return finish(text, unreadable=done.unreadable, failed=done.failed)


@app.command
def report(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Page to write; default: RUN/report.html.")] = None,
) -> int:
    """Write the report of a run again, whether it has finished or not."""
    from msfnet.training.report import write_report

    return finish(write_report(run, out))


@app.command
def compare(
    runs: Annotated[tuple[str, ...], Parameter(help="Run folders or glob patterns.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Page to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> int:
    """Compare runs on one page: differing recipe keys, scores, seeds, learning curves, classes."""
    from msfnet.experiments.compare_page import compare, write_comparison

    comparison = compare(runs)
    write_comparison(out, comparison)
    return finish(to_json(comparison.to_dict()) if as_json else out, left_out=comparison.skipped)
