"""A recipe: everything that decides a training run, as a TOML file of four tables, checked once when it is read.

It knows names and numbers only: no network, no video and no trainer is touched here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from msfnet.types import INPUT_CHANNELS, Preprocessing, UserError, Views, nearest, resize_for

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Operations = Annotated[int, Field(ge=0)]
Magnitude = Annotated[float, Field(ge=0, le=10)]


Tracker = Literal["csv", "wandb", "mlflow", "comet"]


def _listed(value: Any) -> Any:
    """A lone name as a list of one."""
    return [value] if isinstance(value, str) else value


class Table(BaseModel):
    """One table of a recipe; the description of each key is what docs/recipes.md says of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Table):
    name: str = Field("msf_r3d18_fsam", description="a name of `msfnet models`")
    width: float = Field(1.0, gt=0, description="multiplier on every layer's channels")
    init: str = Field(
        "",
        description="state dict, weights file or run to start from, or `kinetics400` (torchvision's, downloaded)",
    )
    arguments: dict[str, Any] = Field({}, description="further arguments of the network: `groups`, `placement`, ...")


class Data(Table):
    frames: Positive = Field(8, description="frames of a clip")
    size: Positive = Field(112, description="side of the square crop, px")
    resize: tuple[Positive, Positive] | None = Field(
        None, description="width and height that frames are scaled to, px; by default 171 x 128 times `size` / 112"
    )
    mean: tuple[float, float, float] = Field((0.432, 0.395, 0.376), description="of red, green and blue, from 0 to 1")
    std: tuple[float, float, float] = Field((0.228, 0.221, 0.217), description="of red, green and blue")
    input: Literal["rgb", "difference", "rgb+difference"] = Field(
        "rgb",
        description="what the network sees: frames, what changes from each to the next (Tao et al., 2020), or both",
    )
    train_sampling: Literal["random-interval", "segments", "dense"] = Field(
        "random-interval",
        description="training frames: one random interval between all, one from each equal segment, or every "
        "`interval`-th from a random start",
    )
    temporal_jitter: Fraction = Field(
        0.0,
        description="training frames come from a random part of the video, shorter than all of it by up to this share",
    )
    sampling: Literal["even", "centred"] = Field(
        "even", description="scored frames: spread over the whole video, or every `interval`-th about the centre"
    )
    interval: Positive = Field(2, description="frames from one to the next of a centred or dense clip")
    fps: float = Field(
        0.0,
        description="frames a second that videos are read at, whatever their own rate: all frames are counted in "
        "these; 0: every frame as the file has it",
    )
    views: str = Field("1x1", description="CLIPSxCROPS that are averaged for a video's score")
    flip: bool = Field(True, description="mirror half of the training clips; wrong where classes tell left from right")
    flip_pairs: tuple[tuple[str, str], ...] = Field(
        (), description='classes that `flip` turns into each other: `[["GoLeft", "GoRight"]]`'
    )
    contrast: Fraction = Field(0.0, description="a training clip's contrast is scaled by 1 - this to 1 + this")
    brightness: Fraction = Field(0.0, description="the same of its brightness")
    saturation: float = Field(0.0, ge=0, le=1, description="the same of its colourfulness")
    hue: float = Field(0.0, ge=0, le=0.5, description="its hues are turned by up to this share of the circle")
    randaugment: tuple[Operations, Magnitude] = Field(
        (0, 9.0),
        description="how many operations are drawn for a training clip, and their magnitude from 0 to 10 "
        "(Cubuk et al., 2020)",
    )
    crop_scale: float = Field(
        1.0, gt=0, le=1, description="below 1, crops have a random side from this share of the frame"
    )
    crop_aspect: float = Field(
        1.0, ge=1, description="above 1, crops are up to so many times wider than high, or higher than wide"
    )
    balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a class of n training videos gets turns in proportion to n to the power of 1 - this: with 0 each "
        "video has one an epoch, with 1 each class has as many",
    )
    val_fraction: Fraction = Field(0.1, description="of the training videos, by group, to choose the best weights on")
    cache: str = Field(
        "auto", description="decoded frames on disk: `auto` (the user's cache folder), `off`, or a folder"
    )
    cache_gb: float = Field(8.0, ge=0, description="most that is cached; what earlier runs left makes room")
    cache_frames: Literal["auto", "raw", "jpeg"] = Field(
        "auto",
        description="how: `raw`, exact; `jpeg`, lossy (about 40 dB) in a sixth or less; `auto`, raw if it all fits",
    )
    decoder: Literal["pyav", "torchcodec", "torchcodec-cuda"] = Field(
        "pyav", description="what decodes videos; the others need the extra `torchcodec`, and give the same frames"
    )
    bad_videos: Literal["skip", "fail"] = Field(
        "skip", description="training videos that cannot be read: left out, counted and listed; or the run ends"
    )
    bad_scored: Literal["zero-score", "fail"] = Field(
        "zero-score", description="scored videos that cannot be read: counted as wrong and listed; or the run ends"
    )
    groups: Literal["keep", "ignore"] = Field(
        "keep",
        description="videos of one group (person, scene, source) share a split, also in a split that is given; "
        "`ignore` draws and takes splits by video, which flatters the score",
    )
    workers: int = Field(2, ge=0, description="processes that read videos")


class Optim(Table):
    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="SGD has a Nesterov momentum of 0.9")
    lr: float = Field(1e-4, gt=0, description="highest learning rate, for batches of `lr_batch`")
    lr_batch: Positive = Field(
        16,
        description="the rate in use is `lr` x `train.batch` / `lr_batch` (the linear rule of Goyal et al., 2017)",
    )
    weight_decay: float = Field(0.0, ge=0, description="of kernels and matrices, not of norms and biases")
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="of the learning rate")
    step_epochs: Positive = Field(10, description="`step` divides the rate by ten every so many epochs")
    warmup_epochs: float = Field(0.0, ge=0, description="the rate rises from zero over so many epochs")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="the rate of each part of the network is this times that of the part behind it"
    )
    frozen: tuple[str, ...] = Field(
        (), description='parts of the network that stay as they are, norms too: `["stem", "layer1"]`'
    )


class Train(Table):
    epochs: Positive = Field(40, description="times that every training video is seen")
    batch: Positive = Field(16, description="clips of a step, 2 or more: of all processes and parts together")
    accumulate: Positive = Field(
        1, description="parts that a process computes a step in, one after the other, to save memory"
    )
    seed: int = Field(0, ge=0, description="of weights, order, clips, augmentation and drawn splits")
    devices: Literal["auto"] | Positive = Field(
        "auto",
        description="processes to train with, a GPU each where there are any; `auto` is one, or as many as torchrun or "
        "SLURM started",
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = Field(
        "32-true",
        description="of the arithmetic; `16-mixed` needs a GPU, `bf16-mixed` one or a CPU that has bf16; 64 bits are "
        "for comparing runs",
    )
    sync_batchnorm: bool = Field(False, description="norms go by the clips of all processes, not of each")
    activation_checkpointing: bool = Field(
        False, description="compute blocks twice instead of keeping what they computed: less memory, a third slower"
    )
    compile: bool = Field(False, description="by torch.compile: minutes at the start, for a faster step on GPUs")
    deterministic: bool = Field(False, description="only algorithms that repeat bit for bit, on GPUs too; slower there")
    save_minutes: float = Field(
        10.0, gt=0, description="a state to resume from is written that often, and after every epoch"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of the beta distribution by which pairs of clips are blended (Zhang et al., 2018)"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        description="alpha of the beta distribution by which a box is cut out of another clip (Yun et al., 2019 and "
        "2020); with `mixup` too, each batch gets one of them",
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target that is spread over all classes")
    ema: Fraction = Field(
        0.0,
        description="decay of a moving average of the weights, which is then scored and kept in their place; 0 is none",
    )
    loss: Literal["cross-entropy", "weighted", "focal"] = Field(
        "cross-entropy",
        description="`weighted`: classes weigh the same whatever their size (inverse frequency); `focal`: what is "
        "recognised already counts for little (Lin et al., 2017)",
    )
    focal_gamma: float = Field(2.0, ge=0, description="how little, for `focal`; 0 is cross-entropy")
    logger: Annotated[tuple[Tracker, ...], BeforeValidator(_listed)] = Field(
        (), description="where to follow the run besides TensorBoard: `csv`, `wandb`, `mlflow`, `comet`; one or a list"
    )


class Recipe(Table):
    """One training run. Every key has its place in one of the four tables; see `msfnet/recipes` for examples."""

    model: Model = Model()
    data: Data = Data()
    optim: Optim = Optim()
    train: Train = Train()

    def preprocessing(self) -> Preprocessing:
        """The part of the recipe that goes with the weights."""
        data = self.data
        return Preprocessing(
            frames=data.frames,
            size_px=data.size,
            resize_px=data.resize or resize_for(data.size),
            mean=data.mean,
            std=data.std,
            sampling=data.sampling,
            interval_frames=data.interval,
            views=Views.parse(data.views),
            input=data.input,
            fps=data.fps,
        )

    def model_arguments(self) -> dict[str, Any]:
        """What the network is made with, its input's size included."""
        own = {"width": self.model.width, "frames": self.data.frames, "size": self.data.size}
        if self.data.input != "rgb":
            own["in_channels"] = INPUT_CHANNELS[self.data.input]
        return own | self.model.arguments

    def learning_rate(self) -> float:
        """The highest in use: `optim.lr` tied to the batch of a step, however many processes and parts share it."""
        return self.optim.lr * self.train.batch / self.optim.lr_batch

    def flat(self) -> dict[str, Any]:
        """Every value under its dotted key, those of `model.arguments` too."""
        return _flat(self.model_dump(mode="json"))

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def shipped_recipes() -> dict[str, str]:
    """The text of each recipe that comes with the package, by name."""
    folder = resources.files("msfnet") / "recipes"
    texts = {f.name.removesuffix(".toml"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    return dict(sorted(texts.items()))


def load_recipe(name_or_file: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe by name or any TOML file, then apply `table.key=value` overrides in order.

    Raises UserError for a recipe that is not there, a key that no recipe has (with the nearest ones), a value of the
    wrong kind, or text that is not TOML.
    """
    texts = shipped_recipes()
    if name_or_file in texts:
        text = texts[name_or_file]
    elif Path(name_or_file).is_file():
        text = Path(name_or_file).read_text("utf-8")
    else:
        raise UserError(f"no recipe or file {name_or_file!r}; {nearest(name_or_file, texts)}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name_or_file} is not valid TOML: {error}") from error
    for override in overrides:
        _set(values, override)
    return make_recipe(values)


def change(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with other values, `table.key=value` each. Raises UserError as `load_recipe` does."""
    values = recipe.model_dump(exclude_none=True)
    for override in overrides:
        _set(values, override)
    return make_recipe(values)


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check nested values and make the recipe of them; the first thing that is wrong is a UserError."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error)) from error
    recipe.preprocessing()  # its own checks, while the user can still mend the recipe
    return recipe


def recipe_keys() -> list[str]:
    """Every `table.key`."""
    tables = {name: type(table) for name, table in Recipe()}
    return [f"{name}.{key}" for name, table in tables.items() for key in table.model_fields]


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    values: dict[str, Any] = {}
    for key, value in tables.items():
        values |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return values


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"expected --set table.key=value, found {override!r}")
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {table} is a key, not a table")
    values[last] = _parse_value(text.strip())


def _parse_value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    errors = error.errors()
    key, found = _key(errors[0]), errors[0]["input"]
    if errors[0]["type"] == "extra_forbidden":
        while isinstance(found, dict) and len(found) == 1:  # a table that no recipe has: name the key within, too
            ((last, found),) = found.items()
            key += f".{last}"
        known = recipe_keys()
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or [
            known_key for known_key in known if known_key.partition(".")[2] == key.rpartition(".")[2]
        ]
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}"
        return f"no recipe key {key!r}; {hint}"
    # A key that takes values of several kinds has one error for each kind.
    reasons = dict.fromkeys(e["msg"][0].lower() + e["msg"][1:] for e in errors if _key(e) == key)
    hint = ""
    if errors[0]["type"] == "literal_error" and isinstance(found, str):
        close = difflib.get_close_matches(found, re.findall("'([^']+)'", errors[0]["ctx"]["expected"]), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
    return f"recipe key {key}: {' or '.join(reasons)}, found {found!r}{hint}"


def _key(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"] if part not in ("constrained-int", "literal['auto']"))
