"""An evaluation result as sections of a page, as a page of its own, and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msfnet import metrics
from msfnet.report.page import Section, Table, write_page
from msfnet.report.plots import plot_calibration, plot_confusion
from msfnet.types import EvalResult, Frames, ScoredVideo

# Paths of videos -> frames of each side by side, H W 3, of those that can be read.
Thumbnails = Callable[[Sequence[str]], Mapping[str, Frames]]

MOST_PAIRS = 12  # rows of the table of confused classes
MOST_EXAMPLES, MOST_ERRORS, MOST_CORRECT = 4, 8, 4  # videos that are shown of each kind


def no_thumbnails(paths: Sequence[str]) -> Mapping[str, Frames]:
    """Return no pictures: for pages without them."""
    return {}


def write_evaluation_report(path: Path, title: str, result: EvalResult, thumbnails: Thumbnails = no_thumbnails) -> None:
    """Write the page of an evaluation.

    Args:
        path: The HTML file.
        title: Title of the page.
        result: What was evaluated.
        thumbnails: Returns pictures of videos by their paths.
    """
    sections = evaluation_sections(result, thumbnails=thumbnails)
    if result.unreadable:
        sections.append(Section("Unreadable videos", "Counted as wrong.", rows=result.unreadable))
    write_page(path, title, evaluation_tiles(result), sections)


def evaluation_tiles(result: EvalResult) -> dict[str, str]:
    """Return the most important numbers: name -> value."""
    return {
        "video top-1": f"{result.video.top1:.1%}",
        "video top-5": f"{result.video.top5:.1%}",
        "mean class accuracy": f"{result.mean_class_accuracy:.1%}",
        "clip top-1": f"{result.clip.top1:.1%}",
        f"videos, {result.views} views": str(result.n_videos),
        "unreadable": str(len(result.unreadable)),
    }


def evaluation_sections(
    result: EvalResult, *, n_train: Mapping[str, int] | None = None, thumbnails: Thumbnails = no_thumbnails
) -> list[Section]:
    """Return accuracy per class, confusions, calibration, and the most confident predictions.

    Args:
        result: What was evaluated.
        n_train: Number of training videos of each class, if it is known.
        thumbnails: Returns pictures of videos by their paths.
    """
    return [
        _class_section(result, n_train or {}),
        Section(
            "Confusion matrix",
            "Rows are true classes, columns predicted classes. Shades are shares of the true class.",
            figure=plot_confusion(result),
        ),
        *_pair_sections(result),
        *_example_sections(result, thumbnails),
        *_calibration_sections(result),
        *_confident_sections(result, thumbnails),
    ]


def evaluation_markdown(result: EvalResult) -> str:
    """Return the accuracies, overall and per class, as Markdown tables."""
    lines = [
        f"{result.n_videos} videos ({result.protocol}), {result.views} views, {len(result.unreadable)} unreadable",
        "",
        "| | top-1 | top-5 |",
        "|---|---|---|",
        f"| clip | {result.clip.top1:.1%} | {result.clip.top5:.1%} |",
        f"| video | {result.video.top1:.1%} | {result.video.top5:.1%} |",
        f"| video, mean over classes | {result.mean_class_accuracy:.1%} | |",
        "",
        "| class | videos | top-1 |",
        "|---|---|---|",
        *(f"| {label} | {row['n']:.0f} | {row['top1']:.1%} |" for label, row in result.per_class.items()),
    ]
    return "\n".join(lines) + "\n"


# Accuracy per class and calibration


def _class_section(result: EvalResult, n_train: Mapping[str, int]) -> Section:
    n_videos = np.array([int(result.per_class.get(label, {"n": 0})["n"]) for label in result.classes])
    precision, f1 = metrics.precision_and_f1(result.confusion, n_videos)
    rows = []
    for label in sorted(result.per_class, key=lambda label: result.per_class[label]["top1"]):
        i, own = result.classes.index(label), result.per_class[label]
        trained = (str(n_train.get(label, 0)),) if n_train else ()
        rows.append((label, *trained, f"{own['n']:.0f}", f"{own['top1']:.1%}", _percent(precision[i]), _percent(f1[i])))
    columns = ("class", *(["training videos"] if n_train else []), "videos", "top-1 (recall)", "precision", "F1")
    correct = round(result.video.top1 * result.n_videos)
    low, high = metrics.wilson_interval(correct, result.n_videos)
    lead = (
        f"Video accuracy on {result.n_videos} videos ({result.protocol}), lowest class first. {correct} videos are "
        f"correct; the 95% confidence interval of the overall top-1 accuracy is {low:.1%} to {high:.1%}."
    )
    return Section("Accuracy per class", lead, table=Table(columns, rows))


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _pair_sections(result: EvalResult) -> list[Section]:
    pairs = metrics.confused_pairs(result.confusion, MOST_PAIRS)
    if not pairs:
        return []
    totals = result.confusion.sum(1)
    rows = [(result.classes[i], result.classes[j], f"{n} of {totals[i]}", f"{n / totals[i]:.0%}") for i, j, n in pairs]
    columns = ("true class", "predicted class", "videos", "share of the true class")
    return [Section("Most confused classes", table=Table(columns, rows))]


def _calibration_sections(result: EvalResult) -> list[Section]:
    predicted = [video for video in result.videos if video.predicted is not None]
    if not predicted:
        return []
    binned = metrics.calibration(np.array([v.score for v in predicted]), np.array([v.correct for v in predicted]))
    confidence, accuracy = np.mean([v.score for v in predicted]), np.mean([v.correct for v in predicted])
    verdict = "overconfident" if confidence > accuracy else "underconfident"
    if abs(confidence - accuracy) < 0.01:
        verdict = "neither over- nor underconfident"
    lead = (
        f"The expected calibration error is {binned.error:.1%} over {len(predicted)} videos in {len(binned.n)} bins "
        f"(Guo et al., 2017); with few videos per bin it is overestimated. The mean confidence is {confidence:.1%} and "
        f"the accuracy {accuracy:.1%}: the network is {verdict}."
    )
    return [Section("Calibration", lead, figure=plot_calibration(binned))]


# Videos


def most_confident(result: EvalResult, *, correct: bool, most: int, per_pair: int) -> list[ScoredVideo]:
    """Return the most confident predictions that are correct, or those that are wrong, most confident first.

    Args:
        result: What was evaluated.
        correct: Whether to return correct or wrong predictions.
        most: Largest number of videos to return.
        per_pair: Largest number of videos with the same true and predicted class, since the network often makes the
            same mistake on all clips of one source.
    """
    found: list[ScoredVideo] = []
    taken: Counter[tuple[str, str | None]] = Counter()
    for video in sorted(result.videos, key=lambda video: (-video.score, video.path)):
        pair = (video.label, video.predicted)
        if video.predicted is not None and video.correct == correct and taken[pair] < per_pair:
            taken[pair] += 1
            found.append(video)
    return found[:most]


def confused_examples(result: EvalResult, most: int) -> list[tuple[ScoredVideo, ScoredVideo | None]]:
    """Return examples of the most confused pairs of classes, most frequent first.

    Each is the most confident wrong prediction of the pair and the most confident correct prediction of the class that
    was predicted, or None if no video of that class is correct.

    Args:
        result: What was evaluated.
        most: Largest number of pairs to return.
    """
    wrong = {(v.label, v.predicted): v for v in most_confident(result, correct=False, most=result.n_videos, per_pair=1)}
    correct = {v.label: v for v in most_confident(result, correct=True, most=result.n_videos, per_pair=1)}
    pairs = [(result.classes[i], result.classes[j]) for i, j, _ in metrics.confused_pairs(result.confusion, most)]
    return [(wrong[pair], correct.get(pair[1])) for pair in pairs if pair in wrong]


def _example_sections(result: EvalResult, thumbnails: Thumbnails) -> list[Section]:
    """Show the most confused pairs of classes: a wrong prediction above a correct one of the predicted class."""
    examples = confused_examples(result, MOST_EXAMPLES)
    frames = thumbnails([video.path for pair in examples for video in pair if video])
    pictures: dict[str, Frames] = {}
    for wrong, correct in examples:
        if wrong.path not in frames:
            continue
        caption, picture = _caption(wrong), frames[wrong.path]
        if correct and correct.path in frames:
            caption = f"Top: {caption}. Bottom: {_name(correct)}, a correct prediction of {correct.label}"
            picture = _stacked(picture, frames[correct.path])
        pictures[caption] = picture
    return [Section("Examples of confused classes", pictures=pictures)] if pictures else []


def _confident_sections(result: EvalResult, thumbnails: Thumbnails) -> list[Section]:
    kinds = {
        "Most confident errors": (
            "At most two videos per pair of classes. Wrong labels in the data often appear here.",
            most_confident(result, correct=False, most=MOST_ERRORS, per_pair=2),
        ),
        "Most confident correct predictions": (
            "",
            most_confident(result, correct=True, most=MOST_CORRECT, per_pair=1),
        ),
    }
    frames = thumbnails([video.path for _, videos in kinds.values() for video in videos])
    sections = []
    for title, (lead, videos) in kinds.items():
        pictures = {_caption(video): frames[video.path] for video in videos if video.path in frames}
        rows = {video.path: _prediction(video) for video in videos if video.path not in frames}
        if videos:
            sections.append(Section(title, lead, rows=rows, pictures=pictures))
    return sections


def _caption(video: ScoredVideo) -> str:
    return f"{_name(video)}, {_prediction(video)}"


def _prediction(video: ScoredVideo) -> str:
    return f"predicted {video.predicted} ({video.score:.1%})" + ("" if video.correct else f", true {video.label}")


def _name(video: ScoredVideo) -> str:
    """Return the file name; the folder is usually the class, which is named beside it."""
    return Path(video.path).name


def _stacked(top: Frames, bottom: Frames) -> Frames:
    """Put one picture H W 3 below the other, with a white gap."""
    width = max(top.shape[1], bottom.shape[1])
    gap = np.full((4, width, 3), 255, np.uint8)
    return np.concatenate([_widened(top, width), gap, _widened(bottom, width)])


def _widened(picture: Frames, width_px: int) -> Frames:
    return np.pad(picture, ((0, 0), (0, width_px - picture.shape[1]), (0, 0)), constant_values=255)
