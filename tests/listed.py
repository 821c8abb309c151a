"""What the tests of readers share: names that people give, and files that are there and empty."""

import os
from pathlib import Path

from hypothesis import strategies as st

from msfnet.data.annotations.names import SPLIT_FOLDERS, composed
from msfnet.data.video.frame_folders import is_hidden, is_video

FORBIDDEN = "/\\" + ('<>:"|?*' if os.name == "nt" else "")


def is_plain_name(name):
    """Whether a name is neither cut by some file system nor hidden, nor that of a video or of a split."""
    special = is_hidden(name) or is_video(Path(name)) or name.lower() in SPLIT_FOLDERS
    return name.strip() == name and name.strip(".") == name and not special


file_names = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z"), exclude_characters=FORBIDDEN)
    | st.sampled_from("aB _,;'#&é語(\u2028" + ('"' if os.name != "nt" else "")),
    min_size=1,
    max_size=12,
).filter(is_plain_name)

line_ends = st.sampled_from(["\n", "\r\n"])
marks = st.sampled_from([b"", b"\xef\xbb\xbf"])
kinds = st.sampled_from([".avi", ".mp4", ".webm", "frames"])


def alike(name):
    """Names that some file system takes for one have this in common."""
    return composed(name).casefold()


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def make_video(folder, name, kind):
    """An empty video file with the ending `kind`, or a frame folder; returns its path."""
    if kind == "num_frames":
        touch(folder, f"{name}/img_00001.jpg", f"{name}/img_00002.jpg")
        return folder / name
    touch(folder, f"{name}{kind}")
    return folder / f"{name}{kind}"


def write_list(path, lines, end="\n", mark=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mark + "".join(line + end for line in lines).encode())


def told(listing):
    """What a listing says of each video, for comparison."""
    return {(item.path, item.label, item.split) for item in listing.items}
