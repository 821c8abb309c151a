"""The command line: one function a command, no logic. Heavy libraries are imported by the command that needs them.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 all done, 1 done but some inputs
failed and are named, 2 the request itself is wrong and one line says how to mend it.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from msfnet import __version__
from msfnet.files import write_text
from msfnet.types import Prediction, UserError, Views

app = App(
    name="msfnet",
    version=__version__,
    help="Train a recogniser for the actions in your videos. `msfnet COMMAND --help` explains a command.",
    help_format="markdown",
)

DataPath = Annotated[Path, Parameter(help="Folder of class folders, manifest CSV, or folder of videos with --lists.")]
DataOrShards = Annotated[
    str,
    Parameter(help="Folder of class folders, manifest CSV, folder of videos with --lists, folder or URL of shards."),
]
WeightsPath = Annotated[Path, Parameter(help="A .safetensors file or a run folder.")]
NetworkPath = Annotated[
    Path, Parameter(help="A .safetensors file, a run folder, a file of msfnet export, or msfnet_ucf101_18.")
]
Lists = Annotated[
    Path | None, Parameter(help="Folder of official lists: UCF101, HMDB51, Kinetics, Something-Something or Jester.")
]
Split = Annotated[int, Parameter(help="Which of several official splits.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
Address = Annotated[str | None, Parameter(help="Ray cluster: auto or HOST:PORT; default: this machine alone.")]
CpusPerRun = Annotated[int | None, Parameter(help="Default: a fair share of what there is.")]
GpusPerRun = Annotated[float | None, Parameter(help="Or part of one; default: 1 where there are any.")]
ViewsText = Annotated[str | None, Parameter(help="CLIPSxCROPS averaged for each video; default: as trained.")]


def say(line: str) -> None:
    """Progress and warnings."""
    print(line, file=sys.stderr, flush=True)


@app.command
def demo(*, out: Path = Path("demo")) -> int:
    """See the whole job in minutes: make videos, train on them, evaluate, predict, draw OUT/report.html."""
    from msfnet.demo.run import run_demo

    print(run_demo(out, say=say))
    return 0


@app.command
def models(*, num_classes: int = 101, as_json: Json = False) -> int:
    """List every network with its parameters, multiply-adds and input (C, T, H, W)."""
    from msfnet.models.registry import list_models, summarise

    rows = [summarise(name, num_classes) for name in list_models()]
    if as_json:
        print(json.dumps([{"name": r.name, "params": r.params, "macs": r.macs, "input": r.input} for r in rows]))
        return 0
    print(f"{'name':<18}{'M parameters':>14}{'GMACs':>9}  input")
    for r in rows:
        print(f"{r.name:<18}{r.params / 1e6:>14.3f}{r.macs / 1e9:>9.2f}  {'x'.join(map(str, r.input))}")
    return 0


@app.command
def train(
    data: DataOrShards,
    *,
    recipe: Annotated[str, Parameter(help="A shipped recipe (best, paper, small) or a TOML file.")] = "small",
    model: Annotated[str | None, Parameter(help="Network, as --set model.name=...")] = None,
    lists: Lists = None,
    split: Split = 1,
    out: Annotated[Path | None, Parameter(help="Run folder; default: runs/MODEL, numbered.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    resume: Annotated[bool, Parameter(negative=(), help="Go on with the run that lies in --out.")] = False,
) -> int:
    """Train a network; leaves a run folder with the best weights and a report."""
    from msfnet import processes
    from msfnet.data.listing.annotations import read_data
    from msfnet.data.shards.index import is_shards, read_shards
    from msfnet.recipe import load_recipe
    from msfnet.train import run
    from msfnet.train.folder import how_to_go_on

    overrides = [*set_, *([f"model.name={model}"] if model else [])]
    if resume and (out is None or overrides):
        raise UserError(
            "--resume needs --out DIR, the run to go on with, and takes its recipe as it is: no --set, --model"
        )
    resolved = load_recipe(recipe, overrides)
    folder = out or run.new_run_folder(resolved.model.name)
    try:
        if resume:
            result = run.resume(folder, say=say)
        else:
            found = read_shards(data) if is_shards(data) else read_data(Path(data), lists, split)
            result = run.train(found, resolved, folder, say=say)
    except KeyboardInterrupt as stop:
        if processes.rank() == 0:
            say(how_to_go_on(stop, data, folder))
        return 128 + getattr(stop, "signal_number", signal.SIGINT)
    if processes.rank():  # the first of several says it for all
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
    random: Annotated[
        tuple[str, ...],
        Parameter(help="table.key=LOW..HIGH (log-uniform), =linear:LOW..HIGH or =value,value,...: drawn."),
    ] = (),
    trials: Annotated[int | None, Parameter(help="How many times --random keys are drawn.")] = None,
    seeds: Annotated[int, Parameter(help="Runs of each trial.")] = 1,
    lists: Lists = None,
    split: Split = 1,
    address: Address = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    as_json: Json = False,
) -> int:
    """Train a recipe with many values and seeds, side by side; rank them on videos held out of training."""
    from msfnet.data.listing.annotations import read_data
    from msfnet.data.shards.index import is_shards, read_shards
    from msfnet.recipe import load_recipe
    from msfnet.sweep.cluster import Machines
    from msfnet.sweep.run import plan_trials, run_sweep

    machines, resolved = Machines(address, cpus_per_run, gpus_per_run), load_recipe(recipe, set_)
    planned = plan_trials(resolved, grid, random, trials, say=say)
    found = read_shards(data) if is_shards(data) else read_data(Path(data), lists, split)
    try:
        result = run_sweep(found, resolved, planned, seeds, out, machines, say=say)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 1
    for path, reason in result.problems.items():
        say(f"could not be read: {path}: {reason}")
    for name, reason in result.failed.items():
        say(f"failed: {name}: {reason}")
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if as_json else result.to_text())
    return 1 if result.failed or result.problems else 0


@app.command
def reproduce(
    tables: Annotated[
        tuple[str, ...], Parameter(help="Tables of the paper (1 2 3 4 5); default: all of the scale.")
    ] = (),
    /,
    *,
    data: Annotated[str | None, Parameter(help="The videos: as DATA of msfnet train.")] = None,
    scale: Annotated[str, Parameter(help="ucf101, ucf101-18, ucf101-18-small or kinetics400.")] = "ucf101",
    lists: Lists = None,
    split: Split = 1,
    seeds: Annotated[int, Parameter(help="Runs of each row.")] = 3,
    recipe: Annotated[str | None, Parameter(help="Another recipe than the scale's, at the scale's size.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value in all runs.")] = (),
    out: Annotated[Path, Parameter(help="Folder for results-SCALE.json, .runs.json, .md and .html.")] = Path(
        "reproduce"
    ),
    runs: Annotated[Path | None, Parameter(help="Folder for the run folders; default: runs/reproduce-SCALE.")] = None,
    join: Annotated[
        tuple[Path, ...], Parameter(help="Files results-SCALE.runs.json of other machines, whose runs are done.")
    ] = (),
    only_report: Annotated[
        bool, Parameter(negative=(), help="Run nothing: write the page of what is finished.")
    ] = False,
    address: Address = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    as_json: Json = False,
) -> int:
    """Train and score the rows of the paper's tables, side by side; say which of its claims held. It goes on."""
    from msfnet.data.listing.annotations import read_data
    from msfnet.data.shards.index import is_shards, read_shards
    from msfnet.reproduce.page import write_results
    from msfnet.reproduce.plan import make_plan
    from msfnet.reproduce.results import read_results
    from msfnet.reproduce.run import Reproduction, run_plan
    from msfnet.reproduce.tables import read_paper, read_scale
    from msfnet.sweep.cluster import Machines

    plan = make_plan(read_paper(), read_scale(scale), tables, recipe, set_, seeds)
    folder = runs or Path("runs") / f"reproduce-{plan.name}"
    if only_report:
        done = Reproduction(read_results(plan, folder, join), {}, {})
    elif data is None:
        raise UserError("expected --data, the videos to train on; --only-report does without")
    else:
        machines = Machines(address, cpus_per_run, gpus_per_run)
        found = read_shards(data) if is_shards(data) else read_data(Path(data), lists, split)
        try:
            done = run_plan(plan, found, folder, machines, join, say=say)
        except KeyboardInterrupt:
            write_results(read_results(plan, folder, join), out)
            say("stopped; the same command goes on")
            return 1
    for path, reason in done.problems.items():
        say(f"could not be read: {path}: {reason}")
    for name, reason in done.failed.items():
        say(f"failed: {name}: {reason}")
    files = write_results(done.results, out)
    print(json.dumps(done.results.to_dict(), indent=2, ensure_ascii=False) if as_json else files[-1])
    return 1 if done.failed or done.problems else 0


@app.command
def shard(
    data: DataPath,
    *,
    out: Annotated[Path, Parameter(help="Folder for the shards.")],
    lists: Lists = None,
    split: Split = 1,
    recipe: Annotated[
        str, Parameter(help="Recipe, or the recipe.toml of a run, whose frame size is wanted.")
    ] = "small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    shard_mb: Annotated[int, Parameter(help="A shard is closed when it has reached so many MB.")] = 256,
) -> int:
    """Pack a data set into shards to stream: tar archives of decoded, resized videos. Started again, it goes on."""
    from msfnet.data.listing.annotations import read_data
    from msfnet.data.shards.write import write_shards
    from msfnet.recipe import load_recipe

    if shard_mb < 1:
        raise UserError(f"expected --shard-mb of 1 or more, found {shard_mb}")
    listing, resolved = read_data(data, lists, split), load_recipe(recipe, set_)
    try:
        index = write_shards(listing, resolved, data, out, shard_bytes=shard_mb * 2**20, say=say)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 1
    print(out)
    return 1 if index.failed else 0


@app.command
def doctor(
    data: DataPath,
    *,
    lists: Lists = None,
    split: Split = 1,
    out: Annotated[Path | None, Parameter(help="Manifest to write of the videos worth training on.")] = None,
    report: Annotated[Path | None, Parameter(help="Folder for report.html and doctor.json.")] = None,
    augmentations: Annotated[Path | None, Parameter(help="Page to write of what the recipe does to clips.")] = None,
    recipe: Annotated[str, Parameter(help="Recipe whose clips and cost are meant.")] = "small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    as_json: Json = False,
) -> int:
    """Decode every video; name what is bad, short, black, a copy or in two splits; say what training will cost."""
    from msfnet.data.augment.page import write_augmentation_page
    from msfnet.data.listing.annotations import read_data
    from msfnet.doctor.page import write_doctor_page
    from msfnet.doctor.run import examine, write_clean_manifest
    from msfnet.recipe import load_recipe

    settings = load_recipe(recipe, set_)
    if augmentations:
        if out or report or as_json:
            raise UserError("expected --augmentations without --out, --report and --json: nothing is examined then")
        write_augmentation_page(read_data(data, lists, split), settings, augmentations)
        print(augmentations)
        return 0
    try:
        examination = examine(data, lists, split, settings, say=say, needs_classes=out is not None)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 1
    text = json.dumps(examination.to_dict(), indent=2, ensure_ascii=False)
    if report:
        report.mkdir(parents=True, exist_ok=True)
        write_doctor_page(report / "report.html", examination)
        write_text(report / "doctor.json", text)
    print(text if as_json else examination.to_text())
    if out:
        say(write_clean_manifest(out, examination))
    return 1 if examination.problems else 0


@app.command
def evaluate(
    weights: NetworkPath,
    data: DataOrShards,
    *,
    lists: Lists = None,
    split: Split = 1,
    views: ViewsText = None,
    out: Annotated[Path | None, Parameter(help="Folder for report.html, scores.json and scores.md.")] = None,
    as_json: Json = False,
) -> int:
    """Score a network on labelled videos: clip and video accuracy, per class, confusion matrix."""
    from msfnet import processes
    from msfnet.data.strips import strips_of
    from msfnet.evaluate import evaluate_data
    from msfnet.report import scores_markdown, write_scores_report

    wanted = Views.parse(views) if views else None
    scores = evaluate_data(weights, data, lists=lists, split=split, views=wanted, say=say)
    if processes.rank():  # the first of several says it for all
        return 0
    text = json.dumps(scores.to_dict(), indent=2, ensure_ascii=False)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_scores_report(out / "report.html", f"{weights} on {data}", scores, strips_of(data))
        write_text(out / "scores.json", text)
        write_text(out / "scores.md", scores_markdown(scores))
    for path, reason in scores.failed.items():
        say(f"failed: {path}: {reason}")
    print(text if as_json else scores_markdown(scores))
    return 1 if scores.failed else 0


@app.command
def report(
    runs: Annotated[tuple[str, ...], Parameter(help="Run folders, or patterns of them.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Page to write; default: compare.html, RUN/report.html of one.")] = None,
    as_json: Json = False,
) -> int:
    """Compare runs on one page: what differs, scores, seeds, curves, classes. Of a single run, write its page anew."""
    from msfnet.compare.page import compare, write_comparison
    from msfnet.train.page import report_run

    if len(runs) == 1 and Path(runs[0]).is_dir() and not as_json:
        print(report_run(Path(runs[0]), out))
        return 0
    comparison, page = compare(runs), out or Path("compare.html")
    write_comparison(page, comparison)
    for folder, reason in comparison.skipped.items():
        say(f"left out: {folder}: {reason}")
    print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) if as_json else page)
    return 1 if comparison.skipped else 0


@app.command
def predict(
    sources: Annotated[
        tuple[str, ...],
        Parameter(help="WEIGHTS as of evaluate, then video files, folders and globs. No WEIGHTS: msfnet_ucf101_18."),
    ] = (),
    /,
    *,
    top: Annotated[int, Parameter(help="How many labels to give.")] = 5,
    views: ViewsText = None,
    as_json: Json = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative=(), help="Print CSV, a row for each label.")] = False,
) -> int:
    """Recognise what is done in videos. A file that cannot be read gets a reason, and the others go on."""
    from msfnet.models.weights_file import SHIPPED, split_words, weights_file
    from msfnet.sources import find_sources

    if as_json and as_csv:
        raise UserError("expected one of --json and --csv, found both")
    if top < 1:
        raise UserError(f"expected --top of 1 or more, found {top}")
    weights, videos = split_words(sources)
    paths, wanted, file = find_sources(videos), Views.parse(views) if views else None, weights_file(weights)
    if str(weights) == SHIPPED:
        say(f"with {SHIPPED}, which knows 18 actions of UCF101; name WEIGHTS before the videos for others")

    from msfnet.predict import Recognizer  # here: torch takes seconds, and mistakes are told before

    recognizer = Recognizer.load(file)
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("path", "rank", "label", "score", "error"))
    for prediction in recognizer.predict_many(paths, top, wanted):
        failed += prediction.error is not None
        if as_json:
            print(prediction.to_json(), flush=True)
        elif as_csv:
            writer.writerows(_csv_rows(prediction))
        else:
            print(_line(prediction), flush=True)
    if failed:
        say(f"{failed} of {len(paths)} files could not be read")
    return 1 if failed else 0


@app.command
def bench(
    models: Annotated[
        tuple[str, ...], Parameter(help="Names of `msfnet models`, run folders or weights; default: every network.")
    ] = (),
    /,
    *,
    runtime: Annotated[
        str | None,
        Parameter(help="eager, fused, compile, onnx or openvino, several with commas; default: those installed."),
    ] = None,
    precision: Annotated[str, Parameter(help="fp32, bf16 or int8, several with commas.")] = "fp32",
    batch: Annotated[int, Parameter(help="Clips at once. PyTorch runs a lone one on a CPU at half speed.")] = 2,
    train: Annotated[bool, Parameter(negative=(), help="Time training steps instead of forward passes.")] = False,
    frames: Annotated[int | None, Parameter(help="Of a clip; weights have their own.")] = None,
    size: Annotated[int | None, Parameter(help="Side in px; weights have their own.")] = None,
    width: Annotated[float | None, Parameter(help="Multiplier on all channels; weights have their own.")] = None,
    threads: Annotated[int | None, Parameter(help="Default: as PyTorch chooses.")] = None,
    rounds: Annotated[int, Parameter(help="In each, every case is timed once.")] = 7,
    device: Annotated[Literal["cpu", "cuda"] | None, Parameter(help="Default: a GPU where there is one.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for table.md, bench.json and a plot.")] = None,
    as_json: Json = False,
) -> int:
    """Time networks in every runtime on this machine, side by side: speed, memory, share of the machine's peak."""
    from msfnet.bench.cases import Conditions
    from msfnet.bench.page import to_text, write_bench
    from msfnet.bench.plan import plan_cases
    from msfnet.bench.run import run_bench

    if rounds < 1:
        raise UserError(f"expected --rounds of 1 or more, found {rounds}")
    own = {key: value for key, value in (("frames", frames), ("size", size), ("width", width)) if value is not None}
    conditions = Conditions.here(batch, train, threads, device)
    cases = plan_cases(models, own, runtime, precision, conditions, say)
    result = run_bench(cases, conditions, rounds, say)
    if out:
        for file in write_bench(out, result):
            say(f"wrote {file}")
    for case, reason in result.failed.items():
        say(f"failed: {case}: {reason}")
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if as_json else to_text(result))
    return 1 if result.failed else 0


@app.command
def export(
    weights: WeightsPath,
    *,
    to: Annotated[str, Parameter(help="onnx, openvino or torch.")],
    precision: Annotated[str, Parameter(help="fp32, bf16 or int8.")] = "fp32",
    out: Annotated[Path, Parameter(help="File to write: .onnx, .xml (with a .bin beside it) or .pt2.")],
    data: Annotated[Path | None, Parameter(help="Videos to compare on and calibrate int8 on: training ones.")] = None,
    lists: Lists = None,
    split: Split = 1,
) -> int:
    """Write a network for another runtime, with its classes and preprocessing; kept only if it says the same."""
    from msfnet.export.run import export

    print(f"{out}: {export(weights, to, precision, out, data=data, lists=lists, split=split, say=say)}")
    return 0


@app.command
def cache(
    *,
    clear: Annotated[bool, Parameter(negative=(), help="Remove all that is kept there, and nothing else.")] = False,
    as_json: Json = False,
) -> int:
    """Show what the cache of decoded frames holds, or clear it. MSFNET_CACHE names another folder than the user's."""
    from msfnet.data.cache import store
    from msfnet.data.cache.frame_cache import default_folder
    from msfnet.recipe import Data

    folder = default_folder()
    if clear:
        freed_bytes = store.clear(folder).used_bytes
        document = json.dumps({"folder": str(folder), "freed_bytes": freed_bytes})
        print(document if as_json else f"freed {freed_bytes / 2**30:.2f} GB of {folder}")
        return 0
    usage, budget_gb = store.usage(folder), Data().cache_gb
    oldest = datetime.fromtimestamp(usage.oldest_use).isoformat(" ", "seconds") if usage.oldest_use else None
    if as_json:
        row = {"entries": usage.entries, "bytes": usage.used_bytes, "budget_bytes": int(budget_gb * 2**30)}
        print(json.dumps({"folder": str(folder)} | row | {"oldest_use": oldest, "damaged": usage.damaged}))
        return 0
    print(f"folder      {folder}")
    print(f"entries     {usage.entries:,}, {usage.damaged} found damaged and dropped so far")
    print(f"size        {usage.used_bytes / 2**30:.2f} GB of {budget_gb:g} GB (data.cache_gb)")
    print(f"oldest use  {oldest or '-'}")
    return 0


def _csv_rows(prediction: Prediction) -> list[tuple[Any, ...]]:
    if prediction.error:
        return [(prediction.path, "", "", "", prediction.error)]
    return [(prediction.path, i, *pair, "") for i, pair in enumerate(prediction.predictions, 1)]


def _line(prediction: Prediction) -> str:
    if prediction.error:
        return f"{prediction.path}: failed: {prediction.error}"
    labels = ", ".join(f"{label} {score:.1%}" for label, score in prediction.predictions)
    return f"{prediction.path}: {labels}" + (f" (note: {prediction.warning})" if prediction.warning else "")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code. `--debug` anywhere shows tracebacks."""
    # Threads that spin long while they wait starve whatever shares the machine, our own readers included; ones that
    # never spin lose what a second thread gains. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.exit(code if isinstance(code, int) else 0)
    except (UserError, CycloptsError) as error:
        if debug:
            raise
        say("msfnet: " + " ".join(str(error).split()))
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; nothing more to say to it
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        say(f"msfnet: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)")
        sys.exit(2)
