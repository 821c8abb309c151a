"""Videos worth looking at: confused ones, and those that a network was most sure about, rightly or wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msfnet.arrays import Frames
from msfnet.metrics import confused_pairs
from msfnet.report.page import Section
from msfnet.types import ScoredVideo, Scores

# Paths of videos -> frames of each side by side, H W 3, of those that can be read.
Strips = Callable[[Sequence[str]], Mapping[str, Frames]]

MOST_PAIRS, MOST_WRONG, MOST_RIGHT = 4, 8, 4


def no_strips(paths: Sequence[str]) -> Mapping[str, Frames]:
    """For pages without pictures."""
    return {}


def most_sure(scores: Scores, *, right: bool, most: int, each: int) -> list[ScoredVideo]:
    """The answers of the highest scores among the right or the wrong ones, best first.

    At most `each` of the same true and recognised class, since clips of one source are often mistaken alike.
    """
    found: list[ScoredVideo] = []
    taken: Counter[tuple[str, str | None]] = Counter()
    for video in sorted(scores.videos, key=lambda video: (-video.score, video.path)):
        kind = (video.label, video.predicted)
        if video.predicted is not None and video.right == right and taken[kind] < each:
            taken[kind] += 1
            found.append(video)
    return found[:most]


def confused_examples(scores: Scores, most: int) -> list[tuple[ScoredVideo, ScoredVideo | None]]:
    """Of each of the most confused pairs of classes a wrong answer, and one of the other class that was right.

    Both are those it was most sure about; where no video of the other class was right there is none.
    """
    wrong = {(v.label, v.predicted): v for v in most_sure(scores, right=False, most=scores.n_videos, each=1)}
    known = {v.label: v for v in most_sure(scores, right=True, most=scores.n_videos, each=1)}
    pairs = [(scores.classes[i], scores.classes[j]) for i, j, _ in confused_pairs(scores.confusion, most)]
    return [(wrong[pair], known.get(pair[1])) for pair in pairs if pair in wrong]


def confused_section(scores: Scores, strips: Strips) -> list[Section]:
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


def sure_sections(scores: Scores, strips: Strips) -> list[Section]:
    """The videos it was most sure about: wrong ones first, as they teach more."""
    kinds = {
        "Most sure, and wrong": (
            "At most two of a kind of mistake. Mislabelled videos show up here too.",
            most_sure(scores, right=False, most=MOST_WRONG, each=2),
        ),
        "Most sure, and right": ("", most_sure(scores, right=True, most=MOST_RIGHT, each=1)),
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
    return f"{video.predicted} ({video.score:.1%})" + ("" if video.right else f", is {video.label}")


def _name(video: ScoredVideo) -> str:
    """A file's name: its folder is mostly its class, which stands beside it anyway."""
    return Path(video.path).name


def _stacked(above: Frames, below: Frames) -> Frames:
    width = max(above.shape[1], below.shape[1])
    gap = np.full((4, width, 3), 255, np.uint8)
    return np.concatenate([_widened(above, width), gap, _widened(below, width)])


def _widened(strip: Frames, width_px: int) -> Frames:
    return np.pad(strip, ((0, 0), (0, width_px - strip.shape[1]), (0, 0)), constant_values=255)
