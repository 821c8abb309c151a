"""Videos worth looking at: confused ones, and those that a network was most sure about, rightly or wrongly.

EvalResult as a page, as sections of one, and as text to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msfnet import metrics
from msfnet.metrics import confused_pairs
from msfnet.report.page import Section, Table, write_page
from msfnet.report.plots import plot_calibration, plot_confusion
from msfnet.types import EvalResult, Frames, ScoredVideo

# Paths of videos -> frames of each side by side, H W 3, of those that can be read.
Strips = Callable[[Sequence[str]], Mapping[str, Frames]]

MOST_PAIRS, MOST_WRONG, MOST_RIGHT = 4, 8, 4


def no_strips(paths: Sequence[str]) -> Mapping[str, Frames]:
    """For pages without pictures."""
    return {}


def most_sure(scores: EvalResult, *, correct: bool, most: int, each: int) -> list[ScoredVideo]:
    """The answers of the highest scores among the correct or the wrong ones, best first.

    At most `each` of the same true and recognized class, since clips of one source are often mistaken alike.
    """
    found: list[ScoredVideo] = []
    taken: Counter[tuple[str, str | None]] = Counter()
    for video in sorted(scores.videos, key=lambda video: (-video.score, video.path)):
        kind = (video.label, video.predicted)
        if video.predicted is not None and video.correct == correct and taken[kind] < each:
            taken[kind] += 1
            found.append(video)
    return found[:most]


def confused_examples(scores: EvalResult, most: int) -> list[tuple[ScoredVideo, ScoredVideo | None]]:
    """Of each of the most confused pairs of classes a wrong answer, and one of the other class that was correct.

    Both are those it was most sure about; where no video of the other class was correct there is none.
    """
    wrong = {(v.label, v.predicted): v for v in most_sure(scores, correct=False, most=scores.n_videos, each=1)}
    known = {v.label: v for v in most_sure(scores, correct=True, most=scores.n_videos, each=1)}
    pairs = [(scores.classes[i], scores.classes[j]) for i, j, _ in confused_pairs(scores.confusion, most)]
    return [(wrong[pair], known.get(pair[1])) for pair in pairs if pair in wrong]


def confused_section(scores: EvalResult, strips: Strips) -> list[Section]:
    """The most confused pairs in pictures."""
    examples = confused_examples(scores, MOST_PAIRS)
    seen = strips([video.path for pair in examples for video in pair if video])
    pictures: dict[str, Frames] = {}
    for wrong, known in examples:
        if wrong.path not in seen:
            continue
        caption = f"{_name(wrong)}: {wrong.label}, taken for {wrong.predicted} ({wrong.score:.0%})"
        picture = seen[wrong.path]
        if known and known.path in seen:
            caption = f"above, {caption}; below, what it knew as {known.label}: {_name(known)}"
            picture = _stacked(picture, seen[known.path])
        pictures[caption] = picture
    return [Section("What was confused", pictures=pictures)] if pictures else []


def sure_sections(scores: EvalResult, strips: Strips) -> list[Section]:
    """The videos it was most sure about: wrong ones first, as they teach more."""
    kinds = {
        "Most sure, and wrong": (
            "At most two of a kind of mistake. Mislabeled videos show up here too.",
            most_sure(scores, correct=False, most=MOST_WRONG, each=2),
        ),
        "Most sure, and correct": ("", most_sure(scores, correct=True, most=MOST_RIGHT, each=1)),
    }
    seen = strips([video.path for _, videos in kinds.values() for video in videos])
    sections = []
    for title, (lead, videos) in kinds.items():
        pictures = {_said(video): seen[video.path] for video in videos if video.path in seen}
        rows = {_name(video): _answer(video) for video in videos if video.path not in seen}
        if videos:
            sections.append(Section(title, lead, rows=rows, pictures=pictures))
    return sections


def _said(video: ScoredVideo) -> str:
    return f"{_name(video)}: {_answer(video)}"


def _answer(video: ScoredVideo) -> str:
    return f"{video.predicted} ({video.score:.1%})" + ("" if video.correct else f", is {video.label}")


def _name(video: ScoredVideo) -> str:
    """A file's name: its folder is mostly its class, which stands beside it anyway."""
    return Path(video.path).name


def _stacked(above: Frames, below: Frames) -> Frames:
    width = max(above.shape[1], below.shape[1])
    gap = np.full((4, width, 3), 255, np.uint8)
    return np.concatenate([_widened(above, width), gap, _widened(below, width)])


def _widened(strip: Frames, width_px: int) -> Frames:
    return np.pad(strip, ((0, 0), (0, width_px - strip.shape[1]), (0, 0)), constant_values=255)


MOST_PAIRS = 12


def write_scores_report(path: Path, title: str, scores: EvalResult, strips: Strips = no_strips) -> None:
    """The page of an evaluation."""
    sections = score_sections(scores, strips=strips)
    if scores.unreadable:
        sections.append(Section("Files that could not be read", "Each counts as wrong.", rows=scores.unreadable))
    write_page(path, title, score_tiles(scores), sections)


def score_tiles(scores: EvalResult) -> dict[str, str]:
    return {
        "video top-1": f"{scores.video['top1']:.1%}",
        "balanced over classes": f"{scores.mean_class_accuracy:.1%}",
        "video top-5": f"{scores.video['top5']:.1%}",
        "clip top-1": f"{scores.clip['top1']:.1%}",
        f"videos, {scores.views} views": str(scores.n_videos),
        "could not be read": str(len(scores.unreadable)),
    }


def score_sections(
    scores: EvalResult, *, trained: Mapping[str, int] | None = None, strips: Strips = no_strips
) -> list[Section]:
    """Classes, confusions and confidence. `trained` says of how many videos each class was learned."""
    return [
        _classes(scores, trained or {}),
        Section("Confusion", "Rows are true, columns recognized.", figure=plot_confusion(scores)),
        *_pairs(scores),
        *confused_section(scores, strips),
        *_calibration(scores),
        *sure_sections(scores, strips),
    ]


def _classes(scores: EvalResult, trained: Mapping[str, int]) -> Section:
    """A row a class, worst first."""
    n_videos = np.array([int(scores.per_class.get(label, {"n": 0})["n"]) for label in scores.classes])
    precision, f1 = metrics.precision_and_f1(scores.confusion, n_videos)
    correct = round(scores.video["top1"] * scores.n_videos)
    low, high = metrics.wilson_interval(correct, scores.n_videos)
    worst_first = sorted(scores.per_class, key=lambda label: scores.per_class[label]["top1"])
    rows = []
    for label in worst_first:
        i, row = scores.classes.index(label), scores.per_class[label]
        learned = (str(trained.get(label, 0)),) if trained else ()
        rows.append((label, *learned, f"{row['n']:.0f}", f"{row['top1']:.1%}", _share(precision[i]), _share(f1[i])))
    columns = ("class", *(["trained on"] if trained else []), "scored", "top-1 (recall)", "precision", "F1")
    lead = (
        f"Video top-1, worst class first. Of {scores.n_videos} videos {correct} are correct; with so many, "
        f"the true share lies between {low:.1%} and {high:.1%} (95 %)."
    )
    return Section("Classes", lead, table=Table(columns, rows))


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _pairs(scores: EvalResult) -> list[Section]:
    pairs = metrics.confused_pairs(scores.confusion, MOST_PAIRS)
    if not pairs:
        return []
    totals = scores.confusion.sum(1)
    rows = [(scores.classes[i], scores.classes[j], f"{n} of {totals[i]}", f"{n / totals[i]:.0%}") for i, j, n in pairs]
    return [Section("Most confused", table=Table(("true class", "taken for", "videos", "share"), rows))]


def _calibration(scores: EvalResult) -> list[Section]:
    answered = [video for video in scores.videos if video.predicted is not None]
    if not answered:
        return []
    binned = metrics.calibration(np.array([v.score for v in answered]), np.array([v.correct for v in answered]))
    sure, correct = np.mean([v.score for v in answered]), np.mean([v.correct for v in answered])
    leaning = "too sure of itself" if sure > correct else "not sure enough of itself"
    verdict = f"it is {leaning}" if abs(sure - correct) >= 0.01 else "on the whole it is as sure as it should be"
    lead = (
        f"Expected calibration error {binned.error:.1%} over {len(answered)} videos in {len(binned.n)} bins (Guo et "
        f"al., 2017; with few videos a bin it comes out too high). It claims {sure:.1%} on average and reaches "
        f"{correct:.1%}: {verdict}."
    )
    return [Section("Can its confidence be believed?", lead, figure=plot_calibration(binned))]


def scores_markdown(scores: EvalResult) -> str:
    """The scores as a table to paste."""
    lines = [
        f"{scores.n_videos} videos, {scores.views} views, {len(scores.unreadable)} failed",
        "",
        "| | top-1 | top-5 |",
        "|---|---|---|",
        f"| clip | {scores.clip['top1']:.1%} | {scores.clip['top5']:.1%} |",
        f"| video | {scores.video['top1']:.1%} | {scores.video['top5']:.1%} |",
        f"| video, mean of classes | {scores.mean_class_accuracy:.1%} | |",
        "",
        "| class | videos | top-1 |",
        "|---|---|---|",
        *(f"| {label} | {row['n']:.0f} | {row['top1']:.1%} |" for label, row in scores.per_class.items()),
    ]
    return "\n".join(lines) + "\n"
