"""The registry of networks: from a name and arguments to a network, its size and its cost."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from msfnet.models import zoo
from msfnet.models.pretrained import load_state, num_classes_of, read_state
from msfnet.types import UserError, nearest

log = logging.getLogger(__name__)

Maker = Callable[..., nn.Module]
M = TypeVar("M", bound=Maker)

NUM_CLASSES = 101  # those of UCF101, as in the paper's tables
# The input of a network that does not say otherwise, and the arguments that describe it.
INPUT = {"in_chans": 3, "num_frames": 8, "img_size": 112}


@dataclass(frozen=True)
class Variant:
    """A named network: its maker and the arguments in which it differs from the maker's defaults."""

    make: Maker
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the maker's arguments after the number of classes."""
        _, *parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def takes_any(self) -> bool:
        """Return whether the maker has **kwargs."""
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.make).parameters.values())


MODELS = {
    "r3d_18": Variant(zoo.r3d_18),
    "r3d_18_fsam": Variant(zoo.r3d_18, {"attention": "fsam"}),
    "r2plus1d_18": Variant(zoo.r2plus1d_18),
    "msf_r3d_18": Variant(zoo.msf_r3d_18),
    "msf_r3d_18_fsam": Variant(zoo.msf_r3d_18, {"attention": "fsam"}),
    "msf_r3d_18_se": Variant(zoo.msf_r3d_18, {"attention": "se"}),
    "msf_r3d_18_cbam": Variant(zoo.msf_r3d_18, {"attention": "cbam"}),
    "msf_r3d_18_nst": Variant(zoo.msf_r3d_18, {"attention": "nst"}),
    "msf_r3d_18_a": Variant(zoo.msf_r3d_18, {"placement": "a"}),
    "msf_r3d_18_c": Variant(zoo.msf_r3d_18, {"placement": "c"}),
    "msf_r3d_18_d": Variant(zoo.msf_r3d_18, {"placement": "d"}),
    "c3d": Variant(zoo.c3d),
    "c3d_fsam": Variant(zoo.c3d, {"attention": "fsam"}),
    "msf_c3d": Variant(zoo.msf_c3d),
    "msf_c3d_fsam": Variant(zoo.msf_c3d, {"attention": "fsam"}),
}
BUILT_IN = frozenset(MODELS)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` takes, registered ones included.

    Args:
        pattern: Shell-style wildcards that a name must match, as in `msf*`.
    """
    return [name for name in MODELS if fnmatchcase(name, pattern)]


@overload
def register_model(name: str, maker: M, **default_kwargs: Any) -> M: ...
@overload
def register_model(name: str, **default_kwargs: Any) -> Callable[[M], M]: ...
def register_model(name: str, maker: M | None = None, **default_kwargs: Any) -> M | Callable[[M], M]:
    """Add a network of your own, which can then be created, trained, evaluated, saved and exported by its name.

        register_model("my_net", MyNet, depth=3)

        @register_model("my_net")
        def my_net(num_classes: int, depth: int = 3) -> nn.Module: ...

    The network is any nn.Module that maps float N C T H W to logits N K. It may have an attribute `input_shape` (C, T,
    H, W), the clip it is meant for. The keyword arguments of the maker can be given to `create_model` and under
    `model.kwargs` in a recipe. Those named `num_frames`, `img_size`, `in_chans` and `width_mult` get the values of the
    recipe: a maker that works for any number of frames and any size need not have the first two, `in_chans` is given
    only where the input is not RGB, and without `width_mult` the recipe's must be 1.

    Weights files hold the name, so a program that loads them registers the network first. Training on several devices
    starts further processes: register the network where a module is imported, not under `if __name__ == "__main__"`.

    Args:
        name: Name of the network. Registering a name once more replaces the network.
        maker: The number of classes and keyword arguments -> nn.Module: a function or a class. Without it, this is a
            decorator.
        default_kwargs: Values in place of the maker's defaults.

    Returns:
        The maker.

    Raises:
        UserError: For the name of a network of msfnet, for something other than a function or class that takes the
            number of classes, and for arguments that it does not have.
    """
    if maker is None:
        return lambda maker: register_model(name, maker, **default_kwargs)
    if name in BUILT_IN:
        raise UserError(f"{name} is a network of msfnet; register yours under another name")
    if isinstance(maker, nn.Module) or not inspect.signature(maker).parameters:
        raise UserError(f"{name}: expected a function or class that takes the number of classes, found {maker!r:.60}")
    variant = Variant(maker, default_kwargs)
    _refuse_unknown(name, variant, default_kwargs)
    MODELS[name] = variant
    return maker


def find_variant(name: str) -> Variant:
    """Return the network of that name.

    Raises:
        UserError: For an unknown name, with the nearest ones.
    """
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; {nearest(name, MODELS)}")
    return MODELS[name]


def default_kwargs(name: str) -> dict[str, Any]:
    """Return the arguments of a network that have defaults, with the defaults.

    Raises:
        UserError: For an unknown name, with the nearest ones.
    """
    variant = find_variant(name)
    own = {key: p.default for key, p in variant.parameters().items() if p.default is not p.empty}
    return own | dict(variant.defaults)


def create_model(name: str, num_classes: int | None = None, pretrained: str | None = None, **kwargs: Any) -> nn.Module:
    """Create a network: float N C T H W -> logits N `num_classes`.

    All networks of msfnet take:

    - `attention`: "none", "fsam", "se", "cbam", "nst", or a callable channels -> module that preserves N C T H W,
      called for the 256-channel and for the last 512-channel stage;
    - `reduction`: reduction ratio of named channel attention, 16 by default;
    - `width_mult`: multiplier on all channels;
    - `in_chans`, `num_frames`, `img_size`: C, T and H = W of a clip, in frames and pixels.

    `msf_*` take `num_splits` (S of Table 2), `msf_r3d_18*` also `placement` ("a" to "d" of Table 1) and `convs` (makers
    of a block's two convolutions), `r2plus1d_18` `middle_per_conv`. Residual networks take `drop_path_rate` (stochastic
    depth rate of the last block) and `zero_init_residual`. `models.zoo` explains them.

    Args:
        name: A name of `list_models()`.
        num_classes: Number of logits. By default as many as the pretrained weights have, or 101 without such weights.
        pretrained: Weights to start from: bundled weights by name (`msfnet_ucf101_18`), a weights file, a run folder, a
            PyTorch state dict, or "kinetics400", torchvision's published weights, which are downloaded. A last layer of
            another number of classes and another attention stay randomly initialized; `models.pretrained` says what
            happened to every key, and the log how many there are. Without it all weights are newly initialized.
        kwargs: Arguments of the network, see above.

    Returns:
        The network, in training mode.

    Raises:
        UserError: For an unknown name or argument (with the nearest ones), invalid values, and weights that do
            not fit.
    """
    variant = find_variant(name)
    values = _complete(name, variant, kwargs)
    state = read_state(pretrained, name) if pretrained else None
    if num_classes is None and state is not None:
        with torch.device("meta"):
            num_classes = num_classes_of(state, _make(name, variant, NUM_CLASSES, values))
    model = _make(name, variant, NUM_CLASSES if num_classes is None else num_classes, values)
    if state is not None:
        for line in load_state(model, state, pretrained, name).lines():
            log.info(f"{name} from {pretrained}: {line}")
    return model


def _complete(name: str, variant: Variant, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments to call the maker with.

    Those that describe the input are left out where the maker does not have them, as is a width multiplier of one:
    recipes always give them.
    """
    parameters, anything = variant.parameters(), variant.takes_any()
    optional = {"num_frames", "img_size"} | ({"width_mult"} if kwargs.get("width_mult") == 1 else set())
    given = {key: v for key, v in kwargs.items() if key in parameters or anything or key not in optional}
    _refuse_unknown(name, variant, given)
    for key in given.keys() & parameters.keys():
        _check_kind(name, key, given[key], parameters[key].default)
    values = dict(variant.defaults) | given
    if missing := [key for key, p in parameters.items() if p.default is p.empty and key not in values]:
        raise UserError(f"{name} needs the argument {missing[0]!r}; give it to create_model or register_model")
    return values


def _refuse_unknown(name: str, variant: Variant, kwargs: Mapping[str, Any]) -> None:
    """Raise UserError for an argument that the maker does not have, with the nearest ones."""
    parameters = variant.parameters()
    for key in kwargs:
        if key not in parameters and not variant.takes_any():
            hint = nearest(key, parameters) if parameters else "it has none"
            hint = "with a recipe, set model.width_mult=1" if key == "width_mult" else hint
            raise UserError(f"{name} has no argument {key!r}; {hint}")


KINDS = {int: (int, "a whole number"), float: (int | float, "a number"), bool: (bool, "a boolean")}


def _check_kind(name: str, key: str, value: Any, default: Any) -> None:
    """Raise UserError for a value that is not the kind of number that the argument's default is."""
    if type(default) not in KINDS:
        return
    kind, described = KINDS[type(default)]
    if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
        raise UserError(f"{name}: expected {described} as {key}, found {value!r}")


def _make(name: str, variant: Variant, num_classes: int, values: Mapping[str, Any]) -> nn.Module:
    """Call the maker; its ValueErrors become UserErrors."""
    if num_classes < 1:
        raise UserError(f"{name}: expected num_classes above 0, found {num_classes}")
    try:
        model = variant.make(num_classes, **values)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: expected an nn.Module from its maker, found {type(model).__name__}")
    return model


# Size and cost


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds for one clip as the layers are defined, by PyTorch's counter, on the meta device.

    Args:
        model: Any network; it is not changed.
        input_shape: C T H W of the clip.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here: networks are created without it

    model = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, *input_shape, device="meta"))
    return counter.get_total_flops() // 2  # the counter counts a multiply-add as two operations


def kernel_exceeds_frames(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Return whether a plain convolution of temporal stride 1 has more taps than its input has frames.

    On CPUs torch 2.13 leaves gradients of such kernels partly unwritten in bf16; `Conv3x3x3` and SAM avoid that.

    Args:
        model: Any network; it is not changed.
        input_shape: C T H W of the clips.
    """
    model, found = copy.deepcopy(model).to("meta").eval(), []

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv3d)
        found.append(1 < inputs[0].shape[2] < conv.kernel_size[0] and conv.stride[0] == 1)

    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        model(torch.zeros(1, *input_shape, device="meta"))
    return any(found)


@dataclass(frozen=True)
class ModelSummary:
    """What `msfnet models` prints of a network. `input` is C, T, H, W; one multiply-add is one MAC."""

    name: str
    params: int
    macs: int
    input: tuple[int, int, int, int]


def input_shape(name: str, model: nn.Module, kwargs: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return C T H W of the clips that a network is meant for: by its attribute, else by its arguments.

    Args:
        name: Name of the network.
        model: The network, which may have an attribute `input_shape`.
        kwargs: The arguments it was created with.
    """
    own = getattr(model, "input_shape", None)
    if own is not None:
        channels, frames, height, width = own
        return channels, frames, height, width
    values = INPUT | default_kwargs(name) | dict(kwargs)
    return values["in_chans"], values["num_frames"], values["img_size"], values["img_size"]


def summarize(name: str, num_classes: int = NUM_CLASSES, **kwargs: Any) -> ModelSummary:
    """Return the size and cost of a network, counted on the meta device, where nothing is allocated or computed.

    Args:
        name: A name of `list_models()`.
        num_classes: Number of logits.
        kwargs: Arguments of `create_model`.

    Raises:
        UserError: As `create_model`.
    """
    with torch.device("meta"):
        model = create_model(name, num_classes, **kwargs)
        shape = input_shape(name, model, kwargs)
        return ModelSummary(name, count_parameters(model), count_macs(model, shape), shape)
