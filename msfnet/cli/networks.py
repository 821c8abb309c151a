"""Commands that run networks: list them, evaluate, predict, export, measure."""

from __future__ import annotations

import csv
import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from msfnet.cli.app import (
    Annotations,
    DataPath,
    DeviceName,
    Json,
    Split,
    ViewsText,
    WeightsPath,
    app,
    finish,
    log,
    to_json,
)
from msfnet.types import Prediction, UserError, Views

Trust = Annotated[bool, Parameter(help="Accept a .pt2 file as WEIGHTS: it can run code when it is loaded.")]


@app.command
def models(
    pattern: Annotated[str, Parameter(help="Names to list, such as 'msf*'.")] = "*",
    /,
    *,
    num_classes: Annotated[int, Parameter(help="Number of classes.")] = 101,
    as_json: Json = False,
) -> int:
    """List the networks with their parameters, multiply-adds (MACs) and input (C T H W)."""
    from msfnet.models.registry import list_models, summarize

    rows = [summarize(name, num_classes) for name in list_models(pattern)]
    if not rows:
        raise UserError(f"expected a pattern of names such as 'msf*', found none that matches {pattern!r}")
    if as_json:
        return finish(to_json([{"name": r.name, "params": r.params, "macs": r.macs, "input": r.input} for r in rows]))
    lines = [f"{'name':<18}{'M parameters':>14}{'GMACs':>9}  input"]
    lines += [f"{r.name:<18}{r.params / 1e6:>14.3f}{r.macs / 1e9:>9.2f}  {'x'.join(map(str, r.input))}" for r in rows]
    return finish("\n".join(lines))


@app.command
def evaluate(
    weights: WeightsPath,
    data: DataPath,
    /,
    *,
    annotations: Annotations = None,
    split: Split = 1,
    views: ViewsText = None,
    out: Annotated[Path | None, Parameter(help="Folder for report.html, scores.json and scores.md.")] = None,
    trust: Trust = False,
    device: DeviceName = None,
    as_json: Json = False,
) -> int:
    """Evaluate a network on labeled videos: clip and video accuracy, results per class, confusion matrix."""
    _require_trust(weights, trust)
    from msfnet import api, distributed
    from msfnet.report import evaluation_markdown

    result = api.evaluate(weights, data, views=views, annotations=annotations, split=split, out=out, device=device)
    if distributed.rank():  # only the first process prints the result
        return 0
    text = to_json(result.to_dict()) if as_json else evaluation_markdown(result)
    return finish(text, unreadable=result.unreadable)


@app.command(usage="Usage: msfnet predict [WEIGHTS] SOURCE... [OPTIONS]")
def predict(
    words: Annotated[
        tuple[str, ...],
        Parameter(
            name="[WEIGHTS] SOURCE",
            help="WEIGHTS as for evaluate, then videos, folders and globs. Without WEIGHTS, "
            "the first word must be a video or a folder of videos, and the bundled weights are used.",
        ),
    ] = (),
    /,
    *,
    top_k: Annotated[int, Parameter(help="Number of classes to print for each video.")] = 5,
    views: ViewsText = None,
    trust: Trust = False,
    device: DeviceName = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON, one line for each video.")] = False,
    as_csv: Annotated[bool, Parameter(name="--csv", help="Print CSV, one row for each class.")] = False,
) -> int:
    """Recognize the actions in videos. A video that cannot be read gets the reason, and the others are processed."""
    from msfnet.inference.sources import find_sources
    from msfnet.run_folder import BUNDLED, resolve_weights

    if as_json and as_csv:
        raise UserError("expected one of --json and --csv, found both")
    if top_k < 1:
        raise UserError(f"expected --top-k of 1 or more, found {top_k}")
    wanted = Views.parse(views) if views else None
    weights, sources = split_words(words)
    _require_trust(weights, trust)
    resolve_weights(Path(weights))
    paths = find_sources(sources)
    if weights == BUNDLED:
        log.info("using %s, which recognizes 18 classes of UCF101; name other WEIGHTS before the videos", BUNDLED)

    from msfnet.inference.recognizer import Recognizer  # here: torch takes seconds, and mistakes are reported before

    recognizer = Recognizer.load(weights, device)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("path", "rank", "label", "score", "error", "warning"))
    n_unreadable = 0
    for prediction in recognizer.predict_many(paths, top_k=top_k, views=wanted):
        n_unreadable += prediction.error is not None
        if as_csv:
            writer.writerows(_csv_rows(prediction))
        else:
            print(prediction.to_json() if as_json else _line(prediction), flush=True)
    if n_unreadable:
        log.warning("%d of %d videos could not be read", n_unreadable, len(paths))
    return 1 if n_unreadable else 0


@app.command
def export(
    weights: Annotated[str, Parameter(help="A .safetensors file, a run folder, or msfnet_ucf101_18 (bundled).")],
    /,
    *,
    to: Annotated[str, Parameter(help="onnx, openvino or torch.")],
    precision: Annotated[str, Parameter(help="fp32, bf16 or int8.")] = "fp32",
    out: Annotated[Path, Parameter(help="File to write: .onnx, .xml (with a .bin beside it) or .pt2.")],
    data: Annotated[
        str | None, Parameter(help="Dataset (DATA as for train) for calibration and for the comparison of predictions.")
    ] = None,
    annotations: Annotations = None,
    split: Split = 1,
) -> int:
    """Write a network for another runtime, with its classes and preprocessing, and compare it with the original."""
    from msfnet.exporting.export import export

    return finish(f"{out}: {export(weights, to, out, precision, data, annotations, split)}")


@app.command
def bench(
    models: Annotated[
        tuple[str, ...], Parameter(help="Names of `msfnet models`, run folders or weights; default: every network.")
    ] = (),
    /,
    *,
    runtime: Annotated[
        str | None,
        Parameter(help="eager, fused, compile, onnx or openvino, comma-separated; default: those installed."),
    ] = None,
    precision: Annotated[str, Parameter(help="fp32, bf16 or int8, comma-separated.")] = "fp32",
    batch_size: Annotated[int, Parameter(help="Clips of one batch. On CPUs, PyTorch is slower with a single one.")] = 2,
    train: Annotated[bool, Parameter(help="Measure training steps instead of forward passes.")] = False,
    num_frames: Annotated[int | None, Parameter(help="Frames of a clip, for networks given by name.")] = None,
    img_size: Annotated[int | None, Parameter(help="Side of the crop in pixels, for networks given by name.")] = None,
    width_mult: Annotated[
        float | None, Parameter(help="Multiplier on all channels, for networks given by name.")
    ] = None,
    threads: Annotated[int | None, Parameter(help="CPU threads; default: PyTorch's choice.")] = None,
    repeats: Annotated[int, Parameter(help="How often each case is timed.")] = 7,
    device: DeviceName = None,
    out: Annotated[Path | None, Parameter(help="Folder for table.md, bench.json and a plot.")] = None,
    as_json: Json = False,
) -> int:
    """Measure networks in every runtime on this machine: latency, throughput, memory, share of the machine's peak."""
    from msfnet.bench.cases import Conditions, plan_cases
    from msfnet.bench.page import to_text, write_bench
    from msfnet.bench.run import run_bench

    if repeats < 1:
        raise UserError(f"expected --repeats of 1 or more, found {repeats}")
    given = {"num_frames": num_frames, "img_size": img_size, "width_mult": width_mult}
    kwargs = {key: value for key, value in given.items() if value is not None}
    conditions = Conditions.here(batch_size, train, threads, device)
    result = run_bench(plan_cases(models, kwargs, runtime, precision, conditions), conditions, repeats)
    for file in write_bench(out, result) if out else ():
        log.info("wrote %s", file)
    return finish(to_json(result.to_dict()) if as_json else to_text(result), failed=result.failed)


def split_words(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Split the words of `predict` into weights and sources.

    The first word names the weights, unless it is plainly a video (by its ending, or as a glob) or a folder of videos.

    Raises:
        UserError: There is no source, or the first word is a folder of run folders.
    """
    from msfnet.data.video.frame_folders import is_video
    from msfnet.run_folder import BUNDLED, RECIPE, WEIGHTS

    first = Path(words[0]) if words else Path()
    if words and first.is_dir():
        named = (first / WEIGHTS).is_file() or (first / RECIPE).is_file()
        if not named and (recipes := sorted(first.glob(f"*/{RECIPE}"))):
            raise UserError(
                f"expected WEIGHTS or videos, found a folder of runs: {words[0]}; name one of them, such as "
                f"{recipes[0].parent}"
            )
    else:
        named = not is_video(first) and not glob.has_magic(str(first))
    sources = words[named:]
    if not sources:
        found = f"WEIGHTS {words[0]} alone" if words else "nothing"
        raise UserError(f"expected [WEIGHTS] VIDEO ..., found {found}; add videos, folders or globs")
    return words[0] if named else BUNDLED, sources


def _require_trust(weights: str, trust: bool) -> None:
    if Path(weights).suffix.lower() == ".pt2" and not trust:
        raise UserError(f"{weights} can run code when it is loaded; if you trust where it comes from, add --trust")


def _csv_rows(prediction: Prediction) -> list[tuple[Any, ...]]:
    if prediction.error:
        return [(prediction.path, "", "", "", prediction.error, "")]
    warning = prediction.warning or ""
    return [(prediction.path, rank, *pair, "", warning) for rank, pair in enumerate(prediction.predictions, 1)]


def _line(prediction: Prediction) -> str:
    if prediction.error:
        return f"{prediction.path}: unreadable: {prediction.error}"
    labels = ", ".join(f"{label} {score:.1%}" for label, score in prediction.predictions)
    return f"{prediction.path}: {labels}" + (f" (warning: {prediction.warning})" if prediction.warning else "")
