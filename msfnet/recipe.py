"""A recipe: every setting of a training run, as a frozen value of six tables that is read from and written to TOML.

It is validated once, when it is built. It holds names and numbers only: no network, video or trainer is created here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from msfnet.types import INPUT_CHANNELS, PAPER_RESIZE, Preprocessing, UserError, Views, nearest, resize_for

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Operations = Annotated[int, Field(ge=0)]
Magnitude = Annotated[float, Field(ge=0, le=10)]
Tracker = Literal["csv", "wandb", "mlflow", "comet"]
Overrides: TypeAlias = Mapping[str, Any] | Iterable[str]  # {"optim.lr": 0.1} or ["optim.lr=0.1"]


def _as_list(value: Any) -> Any:
    """Return a single name as a list of one."""
    return [value] if isinstance(value, str) else value


class Table(BaseModel):
    """One table of a recipe; the description of each key is what docs/recipes.md says of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Table):
    name: str = Field("msf_r3d_18_fsam", description="name of the network; `msfnet models` lists them")
    width_mult: float = Field(1.0, gt=0, description="multiplier on the number of channels of every layer")
    pretrained: str = Field(
        "",
        description="weights to start from: bundled weights by name, a weights file, a run folder, a PyTorch state "
        "dict, or `kinetics400` (torchvision's weights, downloaded); empty trains from scratch",
    )
    kwargs: dict[str, Any] = Field(
        {}, description="further arguments of `create_model`, such as `num_splits` or `placement`"
    )


class ClipTable(Table):
    num_frames: Positive = Field(8, description="frames of one clip")
    crop_size: Positive = Field(112, description="side of the square crop, in pixels")
    resize: tuple[Positive, Positive] | Positive | None = Field(
        None,
        description="[width, height] in pixels that frames are resized to before the crop, or one number for the "
        "short side at an aspect ratio of 4:3; default: 171 x 128 scaled by `crop_size` / 112",
    )
    mean: tuple[float, float, float] = Field(
        (0.432, 0.395, 0.376), description="mean of the red, green and blue channels, from 0 to 1"
    )
    std: tuple[float, float, float] = Field(
        (0.228, 0.221, 0.217), description="standard deviation of the red, green and blue channels"
    )
    input: Literal["rgb", "rgb_diff", "rgb+rgb_diff"] = Field(
        "rgb",
        description="input of the network: RGB frames, differences of consecutive frames (residual frames, Tao et "
        "al., 2020), or both stacked as six channels",
    )
    train_sampling: Literal["random_interval", "segments", "dense"] = Field(
        "random_interval",
        description="how the frames of a training clip are sampled: `random_interval` draws one interval between "
        "frames and a start (section 4.2 of the paper), `segments` draws one frame from each of `num_frames` equal "
        "segments (TSN), `dense` takes every `frame_interval`-th frame from a random start",
    )
    eval_sampling: Literal["uniform", "dense"] = Field(
        "uniform",
        description="how the frames of an evaluated clip are sampled: `uniform` spreads them over the whole video, "
        "`dense` takes every `frame_interval`-th frame around the center of the clip's share of the video",
    )
    frame_interval: Positive = Field(2, description="distance between consecutive frames of a dense clip, in frames")
    fps: float = Field(
        0.0,
        description="frames per second that every video is resampled to; frame counts and "
        "intervals refer to it; 0 reads every frame of the file",
    )
    views: str = Field("1x1", description="CLIPSxCROPS whose scores are averaged for the score of a video")


class Data(Table):
    val_fraction: Fraction = Field(
        0.1, description="share of the training videos held out, whole groups at a time, to select the best epoch"
    )
    group_split: bool = Field(
        True,
        description="keep the videos of one group (person, scene, source) in one split and refuse a given split that "
        "does not; false splits by video, which leaks data and inflates the scores",
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how strongly rare classes are oversampled: a class of n training videos is drawn in proportion "
        "to n to the power of 1 - `class_balance`; 0 shows every video once an epoch, 1 all classes equally often",
    )
    decoder: Literal["pyav", "torchcodec", "torchcodec-cuda"] = Field(
        "pyav",
        description="video decoder; `torchcodec` and `torchcodec-cuda` need the extra `torchcodec` and give the same "
        "frames",
    )
    num_workers: int = Field(2, ge=0, description="processes that read videos; 0 reads them in the training process")
    cache: str = Field(
        "auto", description="where decoded frames are cached: `auto` (the user's cache folder), `off`, or a folder"
    )
    cache_gib: float = Field(
        8.0, ge=0, description="size limit of the frame cache in GiB; the least recently used entries are evicted"
    )
    cache_codec: Literal["auto", "raw", "jpeg"] = Field(
        "auto",
        description="codec of cached frames: `raw` is lossless, `jpeg` is lossy (about 40 dB) and at most a sixth of "
        "the size, `auto` is `raw` if all frames fit",
    )
    on_unreadable_train: Literal["skip", "fail"] = Field(
        "skip",
        description="what happens to unreadable training videos: `skip` leaves them out and reports them, `fail` ends "
        "the run",
    )
    on_unreadable_eval: Literal["count_wrong", "fail"] = Field(
        "count_wrong",
        description="what happens to unreadable evaluation videos: `count_wrong` counts them as wrong predictions and "
        "reports them, `fail` ends the evaluation",
    )


class Augment(Table):
    hflip: bool = Field(
        True,
        description="flip half of the training clips horizontally; turn it off where classes differ by left and right",
    )
    flip_pairs: tuple[tuple[str, str], ...] = Field(
        (), description='pairs of classes that a horizontal flip exchanges: `[["GoLeft", "GoRight"]]`'
    )
    min_crop_side: float = Field(
        1.0,
        gt=0,
        le=1,
        description="smallest side of a training crop as a share of the frame's short side; below 1 the crop size is "
        "random",
    )
    ratio: float = Field(1.0, ge=1, description="largest aspect ratio of a training crop, either way; 1 is square")
    brightness: Fraction = Field(
        0.0, description="brightness of a training clip is scaled by a factor from 1 - `brightness` to 1 + `brightness`"
    )
    contrast: Fraction = Field(
        0.0, description="contrast of a training clip is scaled by a factor from 1 - `contrast` to 1 + `contrast`"
    )
    saturation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="saturation of a training clip is scaled by a factor from 1 - `saturation` to 1 + `saturation`",
    )
    hue: float = Field(
        0.0, ge=0, le=0.5, description="hue of a training clip is shifted by up to this share of the color circle"
    )
    randaugment: tuple[Operations, Magnitude] = Field(
        (0, 9.0),
        description="[number of operations, magnitude from 0 to 10] of RandAugment (Cubuk et al., 2020); 0 operations "
        "turn it off",
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of the beta distribution of mixup (Zhang et al., 2018); 0 turns it off"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        description="alpha of the beta distribution of CutMix (Yun et al., 2019); 0 turns it off; together with "
        "`mixup`, each batch gets one of the two",
    )


class Optim(Table):
    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer; `sgd` has a Nesterov momentum of 0.9")
    lr: float = Field(1e-4, gt=0, description="peak learning rate for a batch size of `base_batch_size`")
    base_batch_size: Positive = Field(
        16,
        description="batch size that `lr` is given for: the learning rate in use is `lr` x `train.batch_size` / "
        "`base_batch_size` (linear scaling rule, Goyal et al., 2017)",
    )
    weight_decay: float = Field(
        0.0, ge=0, description="weight decay of convolution and linear weights; norms and biases have none"
    )
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="learning rate schedule")
    decay_epochs: Positive = Field(
        10, description="epochs after which the schedule `step` divides the learning rate by ten, again and again"
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs over which the learning rate rises linearly from zero to its peak"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="layer-wise learning rate decay: factor between the learning rate of a stage and that of the next "
        "stage toward the output",
    )
    freeze: tuple[str, ...] = Field(
        (), description='modules whose weights and batch norm statistics stay fixed: `["stem", "layer1"]`'
    )


class Train(Table):
    epochs: Positive = Field(40, description="number of passes over the training set")
    batch_size: Positive = Field(
        16, description="clips in one optimizer step, over all processes and micro-batches together; at least 2"
    )
    micro_batches: Positive = Field(
        1,
        description="micro-batches that each process splits its share of a batch into, with gradients accumulated, "
        "to save memory",
    )
    seed: int = Field(
        0, ge=0, description="random seed of initialization, order, clip sampling, augmentation and drawn splits"
    )
    devices: Literal["auto"] | Positive = Field(
        "auto",
        description="processes on each machine, which torchrun or SLURM starts, with one GPU each where there are "
        "GPUs; `auto` accepts any number",
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = Field(
        "32-true",
        description="floating-point precision; `16-mixed` needs a GPU, `bf16-mixed` a GPU or a CPU with bf16 "
        "instructions, `64-true` is for comparing runs",
    )
    sync_batchnorm: bool = Field(False, description="compute batch statistics over all processes")
    activation_checkpointing: bool = Field(
        False,
        description="recompute the activations of each block in the backward pass instead of storing them: less "
        "memory, about a third slower",
    )
    compile: bool = Field(
        False, description="compile the network with torch.compile: minutes at the start, faster steps on GPUs"
    )
    deterministic: bool = Field(
        False, description="use deterministic algorithms only, on GPUs too, where they are slower"
    )
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="minutes between checkpoints within an epoch; every epoch ends with one as well"
    )
    ema_decay: Fraction = Field(
        0.0,
        description="decay of the exponential moving average of the weights, which is then evaluated and saved in "
        "place of the weights; 0 turns it off",
    )
    loss: Literal["cross_entropy", "class_weighted", "focal"] = Field(
        "cross_entropy",
        description="loss function: `class_weighted` is cross-entropy weighted by inverse class frequency, `focal` the "
        "focal loss of Lin et al. (2017)",
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target spread evenly over all classes")
    focal_gamma: float = Field(2.0, ge=0, description="focusing parameter of `focal`; 0 is cross-entropy")
    loggers: Annotated[tuple[Tracker, ...], BeforeValidator(_as_list)] = Field(
        (),
        description="experiment trackers besides TensorBoard: `csv`, `wandb`, `mlflow`, `comet`; one name or a list",
    )


class Recipe(Table):
    """The settings of one training run, in six tables; `docs/recipes.md` describes every key.

    Each table is given as a mapping, and keys that are left out keep their defaults:
    `Recipe(train={"epochs": 5}, optim={"lr": 0.01})`. `load_recipe` reads the bundled recipes and TOML files.
    """

    model: Model = Model()
    clip: ClipTable = ClipTable()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    train: Train = Train()

    def __init__(self, **tables: Any) -> None:
        """Validate the tables.

        Args:
            **tables: `model`, `clip`, `data`, `augment`, `optim` and `train`, each a mapping of keys to values.

        Raises:
            UserError: A table or key does not exist (the message names similar ones) or a value is invalid.
        """
        try:
            super().__init__(**tables)
        except ValidationError as error:
            raise UserError(_explain(error)) from error
        self.preprocessing()  # its own checks, while the user can still correct the recipe

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing that is saved in the checkpoint: the table `[clip]` without `train_sampling`."""
        clip = self.clip
        return Preprocessing(
            num_frames=clip.num_frames,
            crop_size=clip.crop_size,
            resize=_frame_size(clip.resize, clip.crop_size),
            mean=clip.mean,
            std=clip.std,
            eval_sampling=clip.eval_sampling,
            frame_interval=clip.frame_interval,
            views=Views.parse(clip.views),
            input=clip.input,
            fps=clip.fps,
        )

    def model_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of `create_model`, the input size included."""
        own = {
            "width_mult": self.model.width_mult,
            "num_frames": self.clip.num_frames,
            "img_size": self.clip.crop_size,
        }
        if self.clip.input != "rgb":
            own["in_chans"] = INPUT_CHANNELS[self.clip.input]
        return own | self.model.kwargs

    def learning_rate(self) -> float:
        """Return the peak learning rate: `optim.lr` scaled linearly from `optim.base_batch_size` to the batch size."""
        return self.optim.lr * self.train.batch_size / self.optim.base_batch_size

    def flat(self) -> dict[str, Any]:
        """Return every value under its dotted key, such as `optim.lr` or `model.kwargs.num_splits`."""
        return _flat(self.model_dump(mode="json"))

    def to_toml(self) -> str:
        """Return the recipe as TOML that `load_recipe` reads back to an equal recipe."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def _frame_size(resize: tuple[int, int] | int | None, crop_size: int) -> tuple[int, int]:
    """Return width and height of resized frames; a single number is the short side at the paper's aspect ratio."""
    if isinstance(resize, int):
        width, height = PAPER_RESIZE
        return round(resize * width / height), resize
    return resize or resize_for(crop_size)


def bundled_recipes() -> dict[str, str]:
    """Return the TOML text of each recipe that comes with the package, by name."""
    folder = resources.files("msfnet") / "recipes"
    texts = {f.name.removesuffix(".toml"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    return dict(sorted(texts.items()))


def load_recipe(name_or_file: str | Path, overrides: Overrides = ()) -> Recipe:
    """Read a bundled recipe by its name, or any TOML file, and override some of its keys.

    Args:
        name_or_file: Name of a bundled recipe, such as `small`, or path of a TOML file.
        overrides: Keys to change: a mapping such as `{"optim.lr": 0.1}`, or texts such as `"optim.lr=0.1"`, whose
            values are TOML or plain names. They are applied in order.

    Raises:
        UserError: The recipe does not exist, the file is not TOML, a key does not exist (the message names similar
            ones) or a value is invalid.
    """
    name, texts = str(name_or_file), bundled_recipes()
    if name not in texts and not Path(name).is_file():
        raise UserError(f"expected the name of a recipe or a TOML file, found {name!r}; {nearest(name, texts)}")
    try:
        values = tomllib.loads(texts[name] if name in texts else Path(name).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {name} is not valid TOML: {error}") from error
    return _overridden(values, overrides)


def change(recipe: Recipe, overrides: Overrides) -> Recipe:
    """Return a copy of a recipe with some keys overridden, with `overrides` and errors as in `load_recipe`."""
    return _overridden(recipe.model_dump(exclude_none=True), overrides)


def recipe_keys() -> list[str]:
    """Return every `table.key` of a recipe, in order."""
    tables = {name: type(table) for name, table in Recipe()}
    return [f"{name}.{key}" for name, table in tables.items() for key in table.model_fields]


def differing_keys(recipes: Iterable[Recipe]) -> list[str]:
    """Return the dotted keys whose values are not the same in all recipes, in order."""
    values = [recipe.flat() for recipe in recipes]
    keys = dict.fromkeys(key for own in values for key in own)
    return [key for key in keys if any(own.get(key) != values[0].get(key) for own in values)]


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested tables: {"a": {"b": 1}} -> {"a.b": 1}."""
    values: dict[str, Any] = {}
    for key, value in tables.items():
        values |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return values


def _overridden(values: dict[str, Any], overrides: Overrides) -> Recipe:
    """Build a recipe from nested values, which are changed in place."""
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_parse_override, overrides)
    for key, value in pairs:
        _set(values, key, value)
    return Recipe(**values)


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"expected --set table.key=value, found {override!r}")
    return key.strip(), _parse_value(text.strip())


def _set(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    *tables, last = dotted_key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UserError(f"expected a recipe key table.key, found {dotted_key!r}: {table} is a key, not a table")
    values[last] = value


def _parse_value(text: str) -> Any:
    """Parse a TOML value; text that is not TOML is returned as it is, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    """Return the first problem of a recipe as one line."""
    errors = error.errors()
    key, found = _key(errors[0]), errors[0]["input"]
    if errors[0]["type"] == "extra_forbidden":
        while isinstance(found, dict) and len(found) == 1:  # an unknown table: name the key in it as well
            ((last, found),) = found.items()
            key += f".{last}"
        return f"no recipe key {key!r}; {_similar_keys(key)}"
    # A key that takes values of several types has one error for each type.
    reasons = dict.fromkeys(e["msg"][0].lower() + e["msg"][1:] for e in errors if _key(e) == key)
    hint = ""
    if errors[0]["type"] == "literal_error" and isinstance(found, str):
        close = difflib.get_close_matches(found, re.findall("'([^']+)'", errors[0]["ctx"]["expected"]), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
    return f"recipe key {key}: {' or '.join(reasons)}, found {found!r}{hint}"


def _similar_keys(key: str) -> str:
    """Return a clause that names the keys that an unknown one may stand for."""
    known, parts = recipe_keys(), key.split(".")
    own = [full for full in known if full.startswith(f"{parts[0]}.")]
    words = parts[1:] if own else parts
    exact = [full for full in known if full.partition(".")[2] in words]  # the right key in the wrong table
    close = exact or _close(words, own, 0.5) or _close(words, known, 0.6)
    if close:
        close.sort(key=lambda full: difflib.SequenceMatcher(None, full, key).ratio(), reverse=True)
        return f"did you mean {' or '.join(close[:3])}?"
    return f"there are: {', '.join(own or known)}"


def _close(words: Iterable[str], keys: Iterable[str], cutoff: float) -> list[str]:
    """Return the keys whose names contain one of the words or are spelled like it."""
    names = {full: full.partition(".")[2] for full in keys}
    close = {name for word in words for name in difflib.get_close_matches(word, names.values(), cutoff=cutoff)}
    containing = [full for full, name in names.items() if any(word in name for word in words)]
    return containing or [full for full, name in names.items() if name in close]


def _key(error: ErrorDetails) -> str:
    """Return the dotted key of an error, without pydantic's names for the alternatives of a union."""
    return ".".join(str(part) for part in error["loc"] if isinstance(part, int) or part.isidentifier())
