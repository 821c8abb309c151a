"""Commands that run networks: list, score, recognize, time, export."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from msfnet.atomic_io import write_text
from msfnet.cli.app import (
    Annotations,
    DataOrShards,
    Json,
    NetworkPath,
    Split,
    ViewsText,
    WeightsPath,
    app,
    log,
)
from msfnet.types import Prediction, UserError, Views


@app.command
def models(*, num_classes: int = 101, as_json: Json = False) -> int:
    """List every network with its parameters, multiply-adds and input (C, T, H, W)."""
    from msfnet.models.registry import list_models, summarize

    rows = [summarize(name, num_classes) for name in list_models()]
    if as_json:
        print(json.dumps([{"name": r.name, "params": r.params, "macs": r.macs, "input": r.input} for r in rows]))
        return 0
    print(f"{'name':<18}{'M parameters':>14}{'GMACs':>9}  input")
    for r in rows:
        print(f"{r.name:<18}{r.params / 1e6:>14.3f}{r.macs / 1e9:>9.2f}  {'x'.join(map(str, r.input))}")
    return 0


@app.command
def evaluate(
    weights: NetworkPath,
    data: DataOrShards,
    *,
    annotations: Annotations = None,
    split: Split = 1,
    views: ViewsText = None,
    out: Annotated[Path | None, Parameter(help="Folder for report.html, scores.json and scores.md.")] = None,
    as_json: Json = False,
) -> int:
    """Score a network on labeled videos: clip and video accuracy, per class, confusion matrix."""
    from msfnet import distributed
    from msfnet.data.thumbnails import strips_of
    from msfnet.inference.evaluation import evaluate_data
    from msfnet.report import scores_markdown, write_scores_report

    wanted = Views.parse(views) if views else None
    scores = evaluate_data(weights, data, annotations=annotations, split=split, views=wanted)
    if distributed.rank():  # the first of several says it for all
        return 0
    text = json.dumps(scores.to_dict(), indent=2, ensure_ascii=False)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_scores_report(out / "report.html", f"{weights} on {data}", scores, strips_of(data))
        write_text(out / "scores.json", text)
        write_text(out / "scores.md", scores_markdown(scores))
    for path, reason in scores.unreadable.items():
        log.info(f"failed: {path}: {reason}")
    print(text if as_json else scores_markdown(scores))
    return 1 if scores.unreadable else 0


@app.command
def predict(
    sources: Annotated[
        tuple[str, ...],
        Parameter(help="WEIGHTS as of evaluate, then video files, folders and globs. No WEIGHTS: msfnet_ucf101_18."),
    ] = (),
    /,
    *,
    top_k: Annotated[int, Parameter(help="How many labels to give.")] = 5,
    views: ViewsText = None,
    as_json: Json = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative=(), help="Print CSV, a row for each label.")] = False,
) -> int:
    """Recognize what is done in videos. A file that cannot be read gets a reason, and the others go on."""
    from msfnet.inference.sources import find_sources
    from msfnet.run_folder import SHIPPED, split_words, weights_file

    if as_json and as_csv:
        raise UserError("expected one of --json and --csv, found both")
    if top_k < 1:
        raise UserError(f"expected --top-k of 1 or more, found {top_k}")
    weights, videos = split_words(sources)
    paths, wanted, file = find_sources(videos), Views.parse(views) if views else None, weights_file(weights)
    if str(weights) == SHIPPED:
        log.info(f"with {SHIPPED}, which knows 18 actions of UCF101; name WEIGHTS before the videos for others")

    from msfnet.inference.recognizer import Recognizer  # here: torch takes seconds, and mistakes are told before

    recognizer = Recognizer.load(file)
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("path", "rank", "label", "score", "error"))
    for prediction in recognizer.predict_many(paths, top_k, wanted):
        failed += prediction.error is not None
        if as_json:
            print(prediction.to_json(), flush=True)
        elif as_csv:
            writer.writerows(_csv_rows(prediction))
        else:
            print(_line(prediction), flush=True)
    if failed:
        log.info(f"{failed} of {len(paths)} files could not be read")
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
    repeats: Annotated[int, Parameter(help="In each, every case is timed once.")] = 7,
    device: Annotated[Literal["cpu", "cuda"] | None, Parameter(help="Default: a GPU where there is one.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for table.md, bench.json and a plot.")] = None,
    as_json: Json = False,
) -> int:
    """Time networks in every runtime on this machine, side by side: speed, memory, share of the machine's peak."""
    from msfnet.bench.cases import Conditions, plan_cases
    from msfnet.bench.page import to_text, write_bench
    from msfnet.bench.run import run_bench

    if repeats < 1:
        raise UserError(f"expected --repeats of 1 or more, found {repeats}")
    own = {
        key: value
        for key, value in (("num_frames", frames), ("img_size", size), ("width_mult", width))
        if value is not None
    }
    conditions = Conditions.here(batch, train, threads, device)
    cases = plan_cases(models, own, runtime, precision, conditions)
    result = run_bench(cases, conditions, repeats)
    if out:
        for file in write_bench(out, result):
            log.info(f"wrote {file}")
    for case, reason in result.failed.items():
        log.info(f"failed: {case}: {reason}")
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
    annotations: Annotations = None,
    split: Split = 1,
) -> int:
    """Write a network for another runtime, with its classes and preprocessing; kept only if it says the same."""
    from msfnet.exporting.export import export

    print(f"{out}: {export(weights, to, precision, out, data=data, annotations=annotations, split=split)}")
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
