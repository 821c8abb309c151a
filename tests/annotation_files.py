"""Names of videos and labels that users may choose, and folders with empty files under these names."""

import csv
import io
import os
from pathlib import Path

from hypothesis import strategies as st

from msfnet.data.annotations.names import SPLIT_FOLDERS, compose_accents
from msfnet.data.video.frame_folders import is_hidden, is_video

FORBIDDEN = "/\\" + ('<>:"|?*' if os.name == "nt" else "")


def is_plain_name(name):
    """Whether a name is changed by no file system, not hidden, and not that of a video or of a split."""
    special = is_hidden(name) or is_video(Path(name)) or name.lower() in SPLIT_FOLDERS
    return name.strip() == name and name.strip(".") == name and not special


file_names = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z"), exclude_characters=FORBIDDEN)
    | st.sampled_from("aB _,;'#&é語(\u2028" + ('"' if os.name != "nt" else "")),
    min_size=1,
    max_size=12,
).filter(is_plain_name)

line_ends = st.sampled_from(["\n", "\r\n"])
byte_order_marks = st.sampled_from([b"", b"\xef\xbb\xbf"])
kinds = st.sampled_from([".avi", ".mp4", ".webm", "frames"])


def same_file(name):
    """Names that some file system treats as the same file have equal values."""
    return compose_accents(name).casefold()


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def make_video(folder, name, kind):
    """An empty video file with the ending `kind`, or a frame folder; returns its path."""
    if kind == "frames":
        touch(folder, f"{name}/img_00001.jpg", f"{name}/img_00002.jpg")
        return folder / name
    touch(folder, f"{name}{kind}")
    return folder / f"{name}{kind}"


def write_lines(path, lines, end="\n", mark=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mark + "".join(line + end for line in lines).encode())


def labels_of(dataset):
    """Path, label and split of each video, for comparison."""
    return {(item.path, item.label, item.split) for item in dataset.items}


def csv_lines(rows, delimiter=","):
    """The lines of a CSV file, without line ends."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\0").writerows(rows)
    return text.getvalue().split("\0")[:-1]
