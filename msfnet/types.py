"""The values that cross borders between rooms: all frozen, all checked when they are made.

Knows nothing of torch, of video files or of the command line.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Arrays that packages exchange. They are strings so that the command line starts without importing numpy.
Frames: TypeAlias = "npt.NDArray[np.uint8]"  # ... H W 3, RGB
Indices: TypeAlias = "npt.NDArray[np.int64]"  # V T or T: frame numbers
Floats: TypeAlias = "npt.NDArray[np.floating]"
Ints: TypeAlias = "npt.NDArray[np.int64]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"

Say = Callable[[str], None]  # how functions tell the user of progress, a line at a time

# Section 4.2: frames are scaled to 171 x 128, then cropped to 112 x 112. Other crops keep that ratio.
PAPER_CROP_SIZE, PAPER_RESIZE = 112, (171, 128)

# What a network may be shown of a clip, and in how many channels: `data.transforms` says how each is made.
INPUT_CHANNELS = {"rgb": 3, "rgb_diff": 3, "rgb+rgb_diff": 6}


class UserError(ValueError):
    """Something the user can mend: one line that says what was expected, what was found and what to do."""


class VideoError(Exception):
    """One file cannot be used: the reason, in one line. The caller names the file and goes on with the others."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause for an error message that names what `name` may have been meant to be."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"


@dataclass(frozen=True)
class VideoItem:
    """One labeled video of a data set. Videos of one `group` (person, scene, source) share a split."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if self.split not in (None, "train", "val", "test"):
            raise UserError(f"{self.path}: expected split train, val or test, found {self.split!r}")


@dataclass(frozen=True)
class Views:
    """How many clips and crops of a video are scored and averaged: written CLIPSxCROPS, as in `4x1`."""

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips < 1 or self.crops not in (1, 3):
            raise UserError(
                f"expected views as CLIPSxCROPS with 1 clip or more and 1 or 3 crops, found {self}; try 4x1"
            )

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}"

    @classmethod
    def parse(cls, text: str) -> Views:
        clips, _, crops = text.lower().partition("x")
        if not (clips.isdigit() and crops.isdigit()):
            raise UserError(f"expected views as CLIPSxCROPS, as in 4x1, found {text!r}")
        return cls(int(clips), int(crops))


@dataclass(frozen=True)
class FrameFormat:
    """What frames a video is read as: of (width, height) px and so many a second, whatever its own rate.

    With an `fps` of 0 they are every frame that it has, as many a second as those are.
    """

    resize: tuple[int, int]
    fps: float = 0.0

    def __str__(self) -> str:
        return f"{self.resize[0]}x{self.resize[1]} px" + (f" at {self.fps:g} a second" if self.fps else "")

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells frames of this format from others; of every frame it is what it was before there was an `fps`."""
        return (self.resize, self.fps) if self.fps else (self.resize,)


@dataclass(frozen=True)
class Preprocessing:
    """Everything between a video file and the network's input: its only home, saved with the weights.

    `resize` is (width, height), `size_px` the side of the square crop. `sampling` says where the frames of
    a scored clip lie: "even" spreads them over the whole video, "centered" takes every `interval_frames`-th.
    `input` is a key of INPUT_CHANNELS, `fps` that of FrameFormat. Checkpoint files from before there was a choice have
    neither, and are of "rgb" and of every frame.
    """

    num_frames: int
    crop_size: int
    resize: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    eval_sampling: str
    frame_interval: int
    views: Views = Views()
    input: str = "rgb"
    fps: float = 0.0

    def __post_init__(self) -> None:
        if self.input not in INPUT_CHANNELS:
            raise UserError(f"expected an input of {', '.join(INPUT_CHANNELS)}, found {self.input!r}; update msfnet")
        if self.num_frames < 1 or self.crop_size < 1 or self.frame_interval < 1:
            raise UserError(
                f"expected frames, size and interval of 1 or more, found {self.num_frames}, {self.crop_size} and "
                f"{self.frame_interval}"
            )
        if self.fps and not 0.01 <= self.fps <= 1000:
            raise UserError(f"expected clip.fps of 0.01 to 1000, or 0 for every frame of a file, found {self.fps:g}")
        if min(self.resize) < self.crop_size:
            raise UserError(
                f"expected a resize of at least the crop's {self.crop_size} px, found "
                f"{self.resize[0]}x{self.resize[1]} px; raise clip.resize or lower clip.crop_size"
            )

    @property
    def frame_format(self) -> FrameFormat:
        """What videos are read as, before a crop."""
        return FrameFormat(self.resize, self.fps)

    @property
    def channels(self) -> int:
        """Of the network's input."""
        return INPUT_CHANNELS[self.input]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """C T H W of one clip, as the network takes it."""
        return self.channels, self.num_frames, self.crop_size, self.crop_size

    @property
    def read_frames(self) -> int:
        """Frames of a video that make a clip of `frames`: a difference needs the frame after the last, too."""
        return self.num_frames if self.input == "rgb" else self.num_frames + 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"views": str(self.views)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, also after a round trip through JSON, where tuples became lists."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields | {"views": Views.parse(fields["views"])})


def resize_for(size_px: int) -> tuple[int, int]:
    """The paper's scale (171 x 128 for a crop of 112) for another crop, rounded to whole pixels."""
    width, height = PAPER_RESIZE
    return round(width * size_px / PAPER_CROP_SIZE), round(height * size_px / PAPER_CROP_SIZE)


@dataclass(frozen=True)
class Clip:
    """The frames of one or more views of a video: V T H W 3 uint8, and what there is to say of the file."""

    frames: Frames
    video_frames: int
    padded: bool = False  # the video is shorter than the clip: its last frame was repeated
    warning: str | None = None  # of a file that was read all the same: what is wrong with it


@dataclass(frozen=True)
class Prediction:
    """What was recognized in one file: labels with their scores, best first, or the reason why nothing was."""

    path: str
    predictions: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    warning: str | None = None

    def to_json(self) -> str:
        return json.dumps(
            {
                "path": self.path,
                "predictions": [{"label": label, "score": round(score, 6)} for label, score in self.predictions],
                "error": self.error,
                "warning": self.warning,
            },
            ensure_ascii=False,
        )


@dataclass(frozen=True)
class ScoredVideo:
    """One video's answer: the class with the highest score, or None where there is none (an unreadable file)."""

    path: str  # absolute, or the name within the shards
    label: str
    predicted: str | None
    score: float  # of the predicted class, from 0 to 1

    @property
    def correct(self) -> bool:
        return self.predicted == self.label


@dataclass(frozen=True)
class EvalResult:
    """The result of an evaluation. A video that could not be read counts as wrong and stands in `failed`."""

    classes: tuple[str, ...]
    views: Views
    clip: dict[str, float]  # top1, top5: every view on its own
    video: dict[str, float]  # top1, top5: the views' scores averaged
    per_class: dict[str, dict[str, float]]  # label -> n, top1
    confusion: Ints  # K K, rows true, columns predicted; failed videos are in no cell
    n_videos: int
    unreadable: dict[str, str]  # path -> reason
    padded: tuple[str, ...]  # videos shorter than the clip
    videos: tuple[ScoredVideo, ...] = ()  # in the order of the data, failed ones too

    @property
    def mean_class_accuracy(self) -> float:
        """The mean of the classes' top-1: every class counts alike, whatever its size."""
        return sum(row["top1"] for row in self.per_class.values()) / max(len(self.per_class), 1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "n_videos": self.n_videos,
            "n_unreadable": len(self.unreadable),
            "n_padded": len(self.padded),
            "clip": self.clip,
            "video": self.video,
            "mean_class_accuracy": self.mean_class_accuracy,
            "views": str(self.views),
            "per_class": self.per_class,
            "classes": self.classes,
            "confusion": self.confusion.tolist(),
            "unreadable": self.unreadable,
            "padded": self.padded,
            "videos": [asdict(video) | {"score": round(video.score, 6)} for video in self.videos],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalResult:
        """The inverse of `to_dict`, after a round trip through JSON. What older versions did not write is empty.

        Raises UserError for anything else.
        """
        import numpy as np  # here: the command line starts without it

        try:
            n = len(values["classes"])
            scores = cls(
                classes=tuple(values["classes"]),
                views=Views.parse(values["views"]),
                clip={key: float(values["clip"][key]) for key in ("top1", "top5")},
                video={key: float(values["video"][key]) for key in ("top1", "top5")},
                per_class={
                    label: {k: float(row[k]) for k in ("n", "top1")} for label, row in values["per_class"].items()
                },
                confusion=np.array(values["confusion"], dtype=np.int64).reshape(n, n),
                n_videos=int(values["n_videos"]),
                unreadable=dict(values["unreadable"]),
                padded=tuple(values["padded"]),
                videos=tuple(ScoredVideo(**video) for video in values["videos"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"expected scores as msfnet evaluate --json gives them, found none ({error})") from error
        return scores
