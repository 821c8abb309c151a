"""Official annotation files: recognize the format of a folder, read it, and find the videos that it names.

It handles the usual locations of a dataset's videos, not the content of its annotation files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.data.annotations import kinetics, something_something, ucf101_hmdb51
from msfnet.data.annotations.annotation import Annotation, AnnotationFolder, Annotations
from msfnet.data.annotations.names import SPLIT_FOLDERS, compose_accents, group_of, simplify, video_name
from msfnet.data.video.frame_folders import find_videos
from msfnet.data.video_files import VideoFiles
from msfnet.types import UserError, VideoItem


@dataclass(frozen=True)
class Format:
    """A format of annotation files.

    Attributes:
        source: Its name, for messages.
        recognize: Whether a folder has files of this format.
        read: Adds the annotations and notes of a folder.
    """

    source: str
    recognize: Callable[[Path], bool]
    read: Callable[[AnnotationFolder], None]


# The first one that recognizes a folder reads it.
FORMATS = (
    Format("UCF101 annotations", ucf101_hmdb51.has_ucf101, ucf101_hmdb51.read_ucf101),
    Format("HMDB51 annotations", ucf101_hmdb51.has_hmdb51, ucf101_hmdb51.read_hmdb51),
    Format("original HMDB51 annotations", ucf101_hmdb51.has_original_hmdb51, ucf101_hmdb51.read_original_hmdb51),
    Format("Kinetics annotations", kinetics.has_kinetics, kinetics.read_kinetics),
    Format("Something-Something annotations", something_something.has_json, something_something.read_json_files),
    Format(
        "Jester or Something-Something annotations", something_something.has_csv, something_something.read_csv_files
    ),
)


def read_annotations(folder: Path, split: int) -> Annotations:
    """Recognize and read a folder of annotation files.

    Args:
        folder: The folder.
        split: Number of the split, for datasets with several.

    Returns:
        The annotations.

    Raises:
        UserError: No format is recognized, or a line cannot be read or contradicts another one.
    """
    if not folder.is_dir():
        raise UserError(f"expected --annotations to be a folder of annotation files, found {folder}")
    for annotation_format in FORMATS:
        if annotation_format.recognize(folder):
            read = AnnotationFolder(folder, split)
            annotation_format.read(read)
            return Annotations(annotation_format.source, tuple(read.annotations), tuple(read.notes))
    raise UserError(
        "expected the annotation files of UCF101 (trainlist01.txt), HMDB51 (*_train_split_1.txt or *_test_split1.txt), "
        f"Kinetics (*.csv with {', '.join(kinetics.COLUMNS)}), Something-Something (train.json, *-train.csv) or Jester "
        f"(*-train.csv, Train.csv) in {folder}, found none of them"
    )


def read_official(root: Path, annotations: Path, split: int) -> VideoFiles:
    """Read a folder of videos with the official annotation files of their dataset.

    A video that annotations give different labels or splits is left out: it is a whole YouTube video with several
    clips.

    Args:
        root: The folder of the videos.
        annotations: The folder of the annotation files.
        split: Number of the split, for datasets with several.

    Returns:
        The videos that were found, and the names of those that are missing.

    Raises:
        UserError: As `read_annotations`.
    """
    read = read_annotations(annotations, split)
    videos, found, missing = _Videos(root, read.annotations), dict[Path, list[Annotation]](), []
    for annotation in read.annotations:
        if path := videos.find(annotation):
            found.setdefault(path, []).append(annotation)
        else:
            missing.append(annotation.title)
    items, ambiguous = [], []
    for path, (annotation, *others) in found.items():
        label, split_name = annotation.label, annotation.split
        if any((other.label, other.split) != (label, split_name) for other in others):
            ambiguous.append(path)
        else:
            items.append(VideoItem(path, label, split_name, annotation.group or group_of(path, label)))
    notes = list(read.notes)
    if ambiguous:
        notes.append(f"{len(ambiguous)} videos have several labels or splits and are left out (first: {ambiguous[0]})")
    return VideoFiles(tuple(items), read.source, tuple(missing), tuple(notes), official=True)


class _Videos:
    """The videos below a folder, found by their names in the annotations, with any suffix and in any folder."""

    def __init__(self, root: Path, annotations: Sequence[Annotation]) -> None:
        self.root = root
        self.folders = {compose_accents(a.folder or a.label) for a in annotations}
        self.simple_folders = {simplify(name) for name in self.folders}
        self.by_name: dict[str, list[Path]] = {}
        for path in find_videos(root):
            self.by_name.setdefault(compose_accents(video_name(path)), []).append(path)

    def find(self, annotation: Annotation) -> Path | None:
        """Return the best placed video under the first of the annotation's names that has one."""
        for name in (annotation.name, *annotation.other_names):
            paths = self.by_name.get(compose_accents(name), [])
            ranked = [(rank, path) for path in paths if (rank := self._rank(annotation, path))]
            if ranked:
                return min(ranked)[1]
        return None

    def _rank(self, annotation: Annotation, path: Path) -> tuple[int, bool] | None:
        """Return how far a video is from its expected folder; None for one in the folder of another label."""
        folder, own = compose_accents(path.parent.name), compose_accents(annotation.folder or annotation.label)
        in_split = any(SPLIT_FOLDERS.get(part.lower()) == annotation.split for part in path.parts)
        if folder == own:
            return 0, not in_split
        if path.parent == self.root:
            return 2, not in_split
        if folder in self.folders:
            return None
        if simplify(folder) == simplify(own):  # underscores for spaces, other case
            return 1, not in_split
        return None if simplify(folder) in self.simple_folders else (2, not in_split)
