"""The values that packages exchange: frozen dataclasses, validated on construction, and the two kinds of errors.

This module is independent of torch, video files and the command line.
"""

from __future__ import annotations

import difflib
import json
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Arrays that packages exchange. The aliases are strings so that the command line starts without importing numpy.
Frames: TypeAlias = "npt.NDArray[np.uint8]"  # ... H W 3, RGB
Indices: TypeAlias = "npt.NDArray[np.int64]"  # V T or T, frame indices
FrameSampler: TypeAlias = "Callable[[int], Indices]"  # number of frames of a video -> V T, frame indices
Floats: TypeAlias = "npt.NDArray[np.floating]"
Ints: TypeAlias = "npt.NDArray[np.int64]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"

# Section 4.2 of the paper: frames are resized to 171 x 128 px, then cropped to 112 x 112. Other crops keep that ratio.
PAPER_CROP_SIZE, PAPER_RESIZE = 112, (171, 128)

# The inputs that a network can have, with their numbers of channels; `data.transforms` computes them.
INPUT_CHANNELS = {"rgb": 3, "rgb_diff": 3, "rgb+rgb_diff": 6}


class UserError(ValueError):
    """An error that the user can correct: one line with what was expected, what was found and how to fix it."""


class Interrupted(KeyboardInterrupt):
    """A signal interrupted work that can be resumed.

    Args:
        signal_number: The signal, which decides the exit code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class VideoError(Exception):
    """One video cannot be read: the reason, in one line. Callers add the path and continue with other videos."""


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a clause for an error message that suggests names similar to an unknown one, or lists all."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"


@dataclass(frozen=True)
class VideoItem:
    """One labeled video of a dataset.

    Attributes:
        path: The video file or folder of frames; in shards, the name of the video.
        label: Name of its class.
        split: `train`, `val`, `test`, or None if the dataset does not say.
        group: Videos of one group (person, scene, source) are kept in one split; None for a group of its own.

    Raises:
        UserError: The split is none of these.
    """

    path: Path
    label: str
    split: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if self.split not in (None, "train", "val", "test"):
            raise UserError(f"{self.path}: expected the split train, val or test, found {self.split!r}")


@dataclass(frozen=True)
class Views:
    """The number of clips and crops whose scores are averaged for a video, written CLIPSxCROPS, such as `4x1`.

    Attributes:
        clips: Clips per video, 1 or more.
        crops: Spatial crops per clip: 1 (center) or 3 (along the longer side).

    Raises:
        UserError: Another number of either.
    """

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
        """Parse CLIPSxCROPS.

        Raises:
            UserError: The text has another form, or the numbers are not valid.
        """
        clips, _, crops = text.lower().partition("x")
        if not (clips.isdigit() and crops.isdigit()):
            raise UserError(f"expected views as CLIPSxCROPS, as in 4x1, found {text!r}")
        return cls(int(clips), int(crops))


@dataclass(frozen=True)
class FrameFormat:
    """The size and frame rate that videos are resized and resampled to.

    Attributes:
        resize: Width and height in pixels.
        fps: Frames per second; 0 reads every frame of the file.
    """

    resize: tuple[int, int]
    fps: float = 0.0

    def __str__(self) -> str:
        return f"{self.resize[0]}x{self.resize[1]} px" + (f" at {self.fps:g} fps" if self.fps else "")

    @property
    def key(self) -> tuple[Any, ...]:
        """The values that identify this format in cache keys."""
        return (self.resize, self.fps) if self.fps else (self.resize,)


@dataclass(frozen=True)
class Preprocessing:
    """Everything between a video file and the input of a network; saved in its checkpoint.

    Attributes:
        num_frames: Frames of one clip.
        crop_size: Side of the square crop in pixels.
        resize: Width and height in pixels that frames are resized to before the crop.
        mean: Mean of the red, green and blue channels, from 0 to 1.
        std: Standard deviation of these channels.
        eval_sampling: `uniform` spreads the frames of a clip over the whole video, `dense` takes every
            `frame_interval`-th frame.
        frame_interval: Distance between consecutive frames of a dense clip, in frames.
        views: Views that are averaged for the score of a video.
        input: `rgb`, `rgb_diff` or `rgb+rgb_diff`; see `data.transforms`.
        fps: Frame rate that videos are read at; 0 reads every frame of the file.

    Raises:
        UserError: A value is not valid, or the crop is larger than the resized frame.
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
            raise UserError(f"expected the input {' or '.join(INPUT_CHANNELS)}, found {self.input!r}; update msfnet")
        if self.num_frames < 1 or self.crop_size < 1 or self.frame_interval < 1:
            raise UserError(
                f"expected num_frames, crop_size and frame_interval of 1 or more, found {self.num_frames}, "
                f"{self.crop_size} and {self.frame_interval}"
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
        """The format that videos are read in, before the crop."""
        return FrameFormat(self.resize, self.fps)

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return INPUT_CHANNELS[self.input]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape C T H W of one clip at the network's input."""
        return self.channels, self.num_frames, self.crop_size, self.crop_size

    @property
    def read_frames(self) -> int:
        """Frames read for one clip: differences of consecutive frames need one frame more than `num_frames`."""
        return self.num_frames if self.input == "rgb" else self.num_frames + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the values as the header of a checkpoint stores them."""
        return asdict(self) | {"views": str(self.views)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Invert `to_dict`, also after a round trip through JSON, which turns tuples into lists."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields | {"views": Views.parse(fields["views"])})


def resize_for(size_px: int) -> tuple[int, int]:
    """Return the (width, height) that a frame is resized to for a crop, at the paper's 171 x 128 for a crop of 112."""
    width, height = PAPER_RESIZE
    return round(width * size_px / PAPER_CROP_SIZE), round(height * size_px / PAPER_CROP_SIZE)


@dataclass(frozen=True)
class Clip:
    """The frames of one or more clips of a video.

    Attributes:
        frames: V T H W 3 uint8 RGB, for V clips of T frames.
        video_frames: Number of frames of the video, at the frame rate that it was read at.
        padded: The video is shorter than a clip, and its last frame was repeated.
        warning: What is wrong with a damaged file that could be read in part, else None.
        times: V T, seconds from the first frame of the video to each frame; None where the reader does not know them.
    """

    frames: Frames
    video_frames: int
    padded: bool = False
    warning: str | None = None
    times: Floats | None = None


@dataclass(frozen=True)
class Prediction:
    """What was recognized in one video: labels with their probabilities, best first, or why it could not be read.

    `path` is the path that was given; for a video in memory it is `<bytes>`, `<array>`, or the name of a file object.
    """

    path: str
    predictions: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    warning: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the recognized classes, best first. Empty when there is an `error`."""
        return tuple(label for label, _ in self.predictions)

    def to_json(self) -> str:
        """Return one line of JSON, as `msfnet predict --json` prints it."""
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
class Accuracy:
    """The share of samples whose class is the best, or among the five best, from 0 to 1.

    `ci95` is the 95 % Wilson interval of `top1` over videos. Clips of one video are not independent and have none.
    """

    top1: float
    top5: float
    ci95: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ScoredVideo:
    """The class predicted for one scored video, or None if the file could not be read or the scores are NaN."""

    path: str  # absolute, or the name within the shards
    label: str
    predicted: str | None
    score: float  # probability of the predicted class, from 0 to 1

    @property
    def correct(self) -> bool:
        return self.predicted == self.label


@dataclass(frozen=True)
class EvalResult:
    """The result of an evaluation. A video that could not be read counts as wrong and is named in `unreadable`.

    `protocol` says which videos were scored, for example "test split".
    """

    classes: tuple[str, ...]
    views: Views
    clip: Accuracy  # every view on its own
    video: Accuracy  # the scores of a video's views averaged
    per_class: dict[str, dict[str, float]]  # label -> n, top1
    confusion: Ints  # K K, rows true, columns predicted; unreadable videos are in no cell
    n_videos: int
    unreadable: dict[str, str]  # path -> reason
    padded: tuple[str, ...]  # videos shorter than the clip
    videos: tuple[ScoredVideo, ...]  # in the order of the dataset, unreadable ones included
    protocol: str

    @property
    def chance(self) -> float:
        """The accuracy of guessing one of the classes that the scored videos are of."""
        return 1 / max(len(self.per_class), 1)

    @property
    def mean_class_accuracy(self) -> float:
        """The mean of the classes' top-1 accuracies: every class has the same weight, independent of its size."""
        return sum(row["top1"] for row in self.per_class.values()) / max(len(self.per_class), 1)

    def to_dict(self) -> dict[str, Any]:
        """Return what `msfnet evaluate --json` prints."""
        return {
            "protocol": self.protocol,
            "classes": self.classes,
            "n_videos": self.n_videos,
            "n_unreadable": len(self.unreadable),
            "n_padded": len(self.padded),
            "clip": self.clip.to_dict(),
            "video": self.video.to_dict(),
            "chance": self.chance,
            "mean_class_accuracy": self.mean_class_accuracy,
            "views": str(self.views),
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
            "unreadable": self.unreadable,
            "padded": self.padded,
            "videos": [asdict(video) | {"score": round(video.score, 6)} for video in self.videos],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalResult:
        """Return the inverse of `to_dict`, after a round trip through JSON.

        Raises:
            UserError: The values are something else.
        """
        import numpy as np  # here: the command line starts without it

        try:
            n = len(values["classes"])
            low, high = values["video"]["ci95"]
            result = cls(
                classes=tuple(values["classes"]),
                views=Views.parse(values["views"]),
                clip=Accuracy(float(values["clip"]["top1"]), float(values["clip"]["top5"])),
                video=Accuracy(
                    float(values["video"]["top1"]), float(values["video"]["top5"]), (float(low), float(high))
                ),
                per_class={
                    label: {k: float(row[k]) for k in ("n", "top1")} for label, row in values["per_class"].items()
                },
                confusion=np.array(values["confusion"], dtype=np.int64).reshape(n, n),
                n_videos=int(values["n_videos"]),
                unreadable=dict(values["unreadable"]),
                padded=tuple(values["padded"]),
                videos=tuple(ScoredVideo(**video) for video in values["videos"]),
                protocol=str(values["protocol"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"expected scores as msfnet evaluate --json prints them, found something else ({error})"
            ) from error
        return result
