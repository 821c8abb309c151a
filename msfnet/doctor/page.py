"""The examination as a page: what is wrong, with pictures, what the data are, what training will cost, every file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from msfnet.data.sampling import uniform_clips
from msfnet.data.video.decode import read_clips
from msfnet.doctor.examination import Examination
from msfnet.doctor.file_info import VideoFacts
from msfnet.doctor.problems import KINDS, Problem, class_counts
from msfnet.report import Section, Table, write_page
from msfnet.types import FrameFormat, Frames, VideoError

MOST_PICTURES, MOST_FILES = 24, 2000
HEIGHT_PX, FRAMES = 84, 6  # of the strips


def write_doctor_page(path: Path, examination: Examination) -> None:
    facts = examination.facts.values()
    tiles = {
        "videos": f"{len(examination.listing.items)}",
        "classes": f"{len([label for label in examination.listing.classes if label])}",
        "hours": f"{sum(f.duration_seconds for f in facts) / 3600:.2f}",
        "frames": f"{sum(f.frames for f in facts):,}",
        "problems": f"{len(examination.problems)}",
    }
    sections = [_verdict(examination), *_problem_sections(examination)]
    if examination.cost:
        sections += [_classes(examination), Section("Training", f"{examination.cost.describe()}.")]
    sections += [_what_they_are(examination), _files(examination)]
    write_page(path, f"{examination.data}, examined", tiles, sections)


def _verdict(examination: Examination) -> Section:
    lead = f"Every frame of every video below {_common_folder(examination)} was decoded."
    if not examination.problems:
        return Section("Nothing is wrong", lead)
    table = Table(("", "", ""), [(kind, str(n), KINDS[kind]) for kind, n in examination.counts.items()])
    return Section("What is wrong", lead, table=table)


def _problem_sections(examination: Examination) -> list[Section]:
    sections = []
    room = MOST_PICTURES
    for kind in examination.counts:
        problems = [p for p in examination.problems if p.kind == kind]
        pictures: dict[str, Frames] = {}
        for problem in problems:
            if len(pictures) < room and (strip := _strip_of(problem, examination)) is not None:
                pictures[_caption(problem, examination)] = strip
        room -= len(pictures)
        rows = [(_name(p.subject, examination), _reason(p, examination)) for p in problems[:MOST_FILES]]
        table = Table(("", "reason"), rows)
        sections.append(Section(f"{kind.capitalize()}: {KINDS[kind]}", table=table, pictures=pictures))
    return sections


def _name(path: str, examination: Examination) -> str:
    """A path as it is known inside the data set: without what all paths begin with."""
    return path.removeprefix(f"{_common_folder(examination)}{os.sep}")


def _common_folder(examination: Examination) -> str:
    return os.path.commonpath([path.parent for path in examination.facts])


def _reason(problem: Problem, examination: Examination) -> str:
    if not problem.other:
        return problem.reason
    return problem.reason.replace(problem.other, _name(problem.other, examination))


def _caption(problem: Problem, examination: Examination) -> str:
    name = _name(problem.subject, examination)
    return f"above {name}, below {_name(problem.other, examination)}" if problem.other else name


def _strip_of(problem: Problem, examination: Examination) -> Frames | None:
    """Frames of the video, and of the one that it is a copy of below: H W 3. None where there is nothing to see."""
    if problem.item is None:
        return None
    own = _strip(examination.listing.items[problem.item].path, examination.facts)
    if own is None or not problem.other:
        return own
    other = _strip(Path(problem.other), examination.facts)
    if other is None:
        return own
    width = max(own.shape[1], other.shape[1])
    gap = np.full((4, width, 3), 255, np.uint8)
    return np.concatenate([_widened(own, width), gap, _widened(other, width)])


def _widened(strip: Frames, width_px: int) -> Frames:
    return np.pad(strip, ((0, 0), (0, width_px - strip.shape[1]), (0, 0)), constant_values=255)


def _strip(path: Path, facts: dict[Path, VideoFacts]) -> Frames | None:
    """Frames spread over a video, side by side."""
    found = facts[path]
    if found.error:
        return None
    wide, high = found.width_px, found.height_px
    if found.rotation_degrees % 180:
        wide, high = high, wide
    try:
        own = FrameFormat((max(16, round(HEIGHT_PX * wide / high)), HEIGHT_PX))
        clip = read_clips(path, lambda n: uniform_clips(n, FRAMES, 1), own)
    except VideoError:
        return None
    return np.concatenate(list(clip.frames[0]), axis=1)


def _classes(examination: Examination) -> Section:
    counts = class_counts(examination.listing.items)
    largest = max(sum(counted.values()) for counted in counts.values())
    bars = {
        label: (", ".join(f"{n} {split}".strip() for split, n in counted.items()), sum(counted.values()) / largest)
        for label, counted in counts.items()
    }
    return Section("Classes", "Videos of each class and split.", bars=bars)


def _what_they_are(examination: Examination) -> Section:
    """The facts of all readable files, the most frequent values first."""
    facts = [found for found in examination.facts.values() if not found.error]
    kinds = {
        "codec": Counter(f"{f.codec}, {f.pixel_format}" for f in facts),
        "size": Counter(f"{f.width_px}x{f.height_px}" for f in facts),
        "frame rate": Counter(f"{f.fps:.2f}" + ("" if f.constant_fps else " (varies)") for f in facts),
        "rotation": Counter(f"{f.rotation_degrees}°" for f in facts),
        "frames as the header says": Counter(_claim(f) for f in facts),
    }
    rows = {name: ", ".join(f"{value}: {n}" for value, n in counted.most_common(6)) for name, counted in kinds.items()}
    if facts:
        lengths = np.quantile([f.frames for f in facts], (0, 0.05, 0.5, 0.95, 1)).round().astype(int)
        rows["frames"] = "{} at least, {} at 5 %, {} in the middle, {} at 95 %, {} at most".format(*lengths)
    return Section("What the files are", rows=rows)


def _claim(facts: VideoFacts) -> str:
    if not facts.claimed_frames:
        return "it does not say"
    return "yes" if facts.claimed_frames == facts.frames else "no"


def _files(examination: Examination) -> Section:
    wrong: dict[int | None, list[str]] = {}
    for problem in examination.problems:
        wrong.setdefault(problem.item, []).append(problem.kind)
    columns = ("file", "class", "split", "codec", "size", "fps", "frames", "claimed", "turned", "seconds", "verdict")
    rows = [
        (
            _name(str(item.path), examination),
            item.label,
            item.split or "",
            *_columns(examination.facts[item.path]),
            ", ".join(wrong.get(i, [])),
        )
        for i, item in enumerate(examination.listing.items[:MOST_FILES])
    ]
    left = len(examination.listing.items) - len(rows)
    lead = f"The other {left} are in doctor.json." if left else ""
    return Section("Every file", lead, table=Table(columns, rows))


def _columns(facts: VideoFacts) -> tuple[str, ...]:
    if facts.error:
        return ("",) * 7
    return (
        facts.codec,
        f"{facts.width_px}x{facts.height_px}",
        f"{facts.fps:.2f}" + ("" if facts.constant_fps else "~"),
        str(facts.frames),
        str(facts.claimed_frames or "?"),
        f"{facts.rotation_degrees}°" if facts.rotation_degrees else "",
        f"{facts.duration_seconds:.2f}",
    )
