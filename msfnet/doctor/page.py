"""Writes the examination of a dataset as a page: problems with pictures, statistics, training cost and every file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from msfnet.data.sampling import uniform_clips
from msfnet.data.video.decode import read_clips
from msfnet.doctor.examination import Examination
from msfnet.doctor.file_info import VideoInfo
from msfnet.doctor.problems import KINDS, Problem, class_counts
from msfnet.report import Section, Table, write_page
from msfnet.types import FrameFormat, Frames, VideoError

MAX_PICTURES, MAX_ROWS = 24, 2000
HEIGHT_PX, FRAMES = 84, 6  # height of a picture and its number of frames, side by side
MAX_VALUES = 6  # most frequent values that are shown of a statistic
FILE_COLUMNS = (
    *("file", "class", "split", "codec", "size", "fps", "frames", "frames by header", "rotation", "seconds"),
    "problems",
)


def write_doctor_page(path: Path, examination: Examination) -> None:
    """Write the page of an examination.

    Args:
        path: The HTML file.
        examination: The examination.
    """
    labels = [label for label in examination.dataset.classes if label]
    tiles = {
        "videos": f"{len(examination.dataset.items):,}",
        **({"classes": f"{len(labels):,}"} if labels else {}),
        "hours": f"{examination.duration_seconds / 3600:.2f}",
        "frames": f"{examination.n_frames:,}",
        "problems": f"{len(examination.problems):,}",
    }
    sections = [_summary(examination), *_problem_sections(examination)]
    if examination.cost:
        sections += [_class_section(examination), Section("Training cost", examination.cost.describe())]
    sections += [_statistics(examination), _file_section(examination)]
    write_page(path, f"Examination of {examination.data}", tiles, sections)


def _summary(examination: Examination) -> Section:
    lead = f"Every frame of every video in {_common_folder(examination)} was decoded."
    if not examination.problems:
        return Section("No problems found", lead)
    rows = [(kind, str(n), KINDS[kind]) for kind, n in examination.counts.items()]
    return Section("Problems found", lead, table=Table(("kind", "number", "meaning"), rows))


def _problem_sections(examination: Examination) -> list[Section]:
    """Return a section for each kind of problem, with pictures of the first videos."""
    sections = []
    pictures_left = MAX_PICTURES
    for kind, n in examination.counts.items():
        problems = [p for p in examination.problems if p.kind == kind]
        pictures: dict[str, Frames] = {}
        for problem in problems:
            if len(pictures) < pictures_left and (picture := _picture(problem, examination)) is not None:
                pictures[_caption(problem, examination)] = picture
        pictures_left -= len(pictures)
        rows = [(_name(p.subject, examination), _reason(p, examination)) for p in problems[:MAX_ROWS]]
        left_out = n - len(rows)
        lead = f"The table shows {MAX_ROWS:,} of {n:,}; doctor.json lists all." if left_out else ""
        title = f"{kind.replace('_', ' ').capitalize()}: {KINDS[kind]}"
        sections.append(Section(title, lead, table=Table(("subject", "reason"), rows), pictures=pictures))
    return sections


def _name(path: str, examination: Examination) -> str:
    """Return a path relative to the folder that all files are in."""
    return path.removeprefix(f"{_common_folder(examination)}{os.sep}")


def _common_folder(examination: Examination) -> str:
    return os.path.commonpath([path.parent for path in examination.info])


def _reason(problem: Problem, examination: Examination) -> str:
    if not problem.other:
        return problem.reason
    return problem.reason.replace(problem.other, _name(problem.other, examination))


def _caption(problem: Problem, examination: Examination) -> str:
    name = _name(problem.subject, examination)
    return f"above {name}, below {_name(problem.other, examination)}" if problem.other else name


def _picture(problem: Problem, examination: Examination) -> Frames | None:
    """Return frames of the video above those of the one that it copies: H W 3. None without a readable video."""
    if problem.item is None:
        return None
    own = _strip(examination.dataset.items[problem.item].path, examination.info)
    if own is None or not problem.other:
        return own
    other = _strip(Path(problem.other), examination.info)
    if other is None:
        return own
    width = max(own.shape[1], other.shape[1])
    gap = np.full((4, width, 3), 255, np.uint8)
    return np.concatenate([_pad(own, width), gap, _pad(other, width)])


def _pad(strip: Frames, width_px: int) -> Frames:
    return np.pad(strip, ((0, 0), (0, width_px - strip.shape[1]), (0, 0)), constant_values=255)


def _strip(path: Path, info: dict[Path, VideoInfo]) -> Frames | None:
    """Return the frames from all over a video, side by side: H W 3."""
    file = info[path]
    if file.error:
        return None
    width, height = file.width_px, file.height_px
    if file.rotation_degrees % 180:
        width, height = height, width
    try:
        frame_format = FrameFormat((max(16, round(HEIGHT_PX * width / height)), HEIGHT_PX))
        clip = read_clips(path, lambda n: uniform_clips(n, FRAMES, 1), frame_format)
    except VideoError:  # the file has changed since it was scanned
        return None
    return np.concatenate(list(clip.frames[0]), axis=1)


def _class_section(examination: Examination) -> Section:
    counts = class_counts(examination.dataset.items)
    largest = max(sum(counted.values()) for counted in counts.values())
    bars = {
        label: (", ".join(f"{n} {split}".strip() for split, n in counted.items()), sum(counted.values()) / largest)
        for label, counted in counts.items()
    }
    return Section("Classes", "Number of videos of each class in each split.", bars=bars)


def _statistics(examination: Examination) -> Section:
    """Return the statistics of all readable files."""
    files = [file for file in examination.info.values() if not file.error]
    values = {
        "codec and pixel format": Counter(f"{file.codec} {file.pixel_format}" for file in files),
        "frame size, px": Counter(f"{file.width_px}x{file.height_px}" for file in files),
        "frame rate, fps": Counter(_frame_rate(file) for file in files),
        "rotation": Counter(f"{file.rotation_degrees}°" for file in files),
        "frames as in the header": Counter(map(_matches_header, files)),
    }
    rows = {}
    for name, counted in values.items():
        shown = counted.most_common(MAX_VALUES)
        others = counted.total() - sum(n for _, n in shown)
        rows[name] = ", ".join(f"{value} ({n:,})" for value, n in [*shown, ("others", others)] if n)
    if files:
        least, low, middle, high, most = np.quantile([file.frames for file in files], (0, 0.05, 0.5, 0.95, 1))
        rows["frames of a video"] = (
            f"minimum {least:.0f}, 5th percentile {low:.0f}, median {middle:.0f}, 95th percentile {high:.0f}, "
            f"maximum {most:.0f}"
        )
    return Section("Dataset statistics", "Values with their numbers of videos, the most frequent first.", rows=rows)


def _frame_rate(file: VideoInfo) -> str:
    return f"{file.fps:.2f}" + ("" if file.constant_fps else " (variable)")


def _matches_header(file: VideoInfo) -> str:
    if not file.header_frames:
        return "not in the header"
    return "yes" if file.header_frames == file.frames else "no"


def _file_section(examination: Examination) -> Section:
    kinds: dict[int | None, list[str]] = {}
    for problem in examination.problems:
        kinds.setdefault(problem.item, []).append(problem.kind)
    rows = [
        (
            _name(str(item.path), examination),
            item.label,
            item.split or "",
            *_file_cells(examination.info[item.path]),
            ", ".join(kinds.get(i, [])),
        )
        for i, item in enumerate(examination.dataset.items[:MAX_ROWS])
    ]
    left_out = len(examination.dataset.items) - len(rows)
    lead = f"The table shows {len(rows):,} files; the other {left_out:,} are in doctor.json." if left_out else ""
    used = [i for i in range(len(FILE_COLUMNS)) if any(row[i] for row in rows)]
    table = Table([FILE_COLUMNS[i] for i in used], [[row[i] for i in used] for row in rows])
    return Section("Files", lead, table=table)


def _file_cells(file: VideoInfo) -> tuple[str, ...]:
    """Return the cells of a file from its codec to its duration; empty for an unreadable file."""
    if file.error:
        return ("",) * 7
    return (
        file.codec,
        f"{file.width_px}x{file.height_px}",
        _frame_rate(file),
        str(file.frames),
        str(file.header_frames or ""),
        f"{file.rotation_degrees}°" if file.rotation_degrees else "",
        f"{file.duration_seconds:.2f}",
    )
