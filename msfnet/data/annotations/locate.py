"""Where the videos of an official list lie: by their names, whatever their endings and the folders between.

Knows the forms of names that people keep such videos under, not the formats of the lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msfnet.data.annotations.entries import Entry
from msfnet.data.annotations.names import SPLIT_FOLDERS, composed, group_of, plain, video_name
from msfnet.data.video.frame_folders import videos_below
from msfnet.types import VideoItem


def locate(root: Path, entries: Sequence[Entry]) -> tuple[list[VideoItem], list[str], list[Path]]:
    """The videos below `root` that entries name, the titles of entries without one, and the videos left out.

    Left out are those that entries with different labels or splits lead to, as clips of one whole YouTube video do.
    """
    videos, found, missing = _Videos(root, entries), dict[Path, list[Entry]](), []
    for entry in entries:
        if path := videos.find(entry):
            found.setdefault(path, []).append(entry)
        else:
            missing.append(entry.title)
    items, disputed = [], []
    for path, (entry, *others) in found.items():
        if any((other.label, other.split) != (entry.label, entry.split) for other in others):
            disputed.append(path)
        else:
            items.append(VideoItem(path, entry.label, entry.split, entry.group or group_of(path, entry.label)))
    return items, missing, disputed


class _Videos:
    """The videos below a folder by name, for entries of known labels."""

    def __init__(self, root: Path, entries: Sequence[Entry]) -> None:
        self.root = root
        self.folders = {composed(e.folder or e.label) for e in entries}
        self.plain_folders = {plain(name) for name in self.folders}
        self.by_name: dict[str, list[Path]] = {}
        for path in videos_below(root):
            self.by_name.setdefault(composed(video_name(path)), []).append(path)

    def find(self, entry: Entry) -> Path | None:
        """The nearest video under the first of the entry's names that has one."""
        for name in (entry.name, *entry.other_names):
            ranked = [
                (rank, path) for path in self.by_name.get(composed(name), []) if (rank := self._rank(entry, path))
            ]
            if ranked:
                return min(ranked)[1]
        return None

    def _rank(self, entry: Entry, path: Path) -> tuple[int, bool] | None:
        """How far a video lies from where it is expected. None: in another label's folder, so it is another video."""
        folder, own = composed(path.parent.name), composed(entry.folder or entry.label)
        in_split = any(SPLIT_FOLDERS.get(part.lower()) == entry.split for part in path.parts)
        if folder == own:
            return 0, not in_split
        if path.parent == self.root:
            return 2, not in_split
        if folder in self.folders:
            return None
        if plain(folder) == plain(own):  # spaces as underscores, letters in another case
            return 1, not in_split
        return None if plain(folder) in self.plain_folders else (2, not in_split)
