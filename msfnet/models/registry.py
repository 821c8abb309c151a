"""The one registry: from a name and arguments to a network, its size and its cost."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from msfnet.models import zoo
from msfnet.types import UserError, nearest


@dataclass(frozen=True)
class Variant:
    """A named network: its maker and the arguments in which it differs from the maker's defaults."""

    make: Callable[..., nn.Module]
    defaults: Mapping[str, Any] = field(default_factory=dict)


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
    "c3d": Variant(zoo.c3d, {"num_frames": 16}),
    "c3d_fsam": Variant(zoo.c3d, {"num_frames": 16, "attention": "fsam"}),
    "msf_c3d": Variant(zoo.msf_c3d, {"num_frames": 16}),
    "msf_c3d_fsam": Variant(zoo.msf_c3d, {"num_frames": 16, "attention": "fsam"}),
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(MODELS)


def default_kwargs(name: str) -> dict[str, Any]:
    """The arguments of a network with their defaults: those that all share, its own, and what its name stands for.

    Raises UserError for an unknown name, with the nearest ones.
    """
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; {nearest(name, MODELS)}")
    parameters = inspect.signature(MODELS[name].make).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return asdict(zoo.Shared()) | own | dict(MODELS[name].defaults)


def create_model(name: str, num_classes: int = 101, **kwargs: Any) -> nn.Module:
    """Make a network with fresh weights: float N C T H W in, logits N `num_classes` out.

    Arguments that every network takes: `attention` (none, fsam, se, cbam, nst), `reduction`, `width_mult` (a multiplier
    on all channels), `in_chans`, `num_frames` and `img_size` (px); `msf_*` also take `num_splits`, `msf_r3d_18` also
    `placement` (a to d), `r2plus1d_18` also `middle_per_conv`. Residual networks of 18 layers take `drop_path_rate` (the last
    block's rate of stochastic depth) and `zero_init_residual` (residual branches start at zero).

    Raises UserError for an unknown name or argument, and for values that cannot work together.
    """
    values = default_kwargs(name)
    for key in kwargs:
        if key not in values:
            raise UserError(f"{name} has no argument {key!r}; {nearest(key, values)}")
        _check_kind(name, key, kwargs[key], values[key])
    values |= kwargs
    shared = {f.name: values.pop(f.name) for f in fields(zoo.Shared)}
    for key, value in {"num_classes": num_classes, **shared}.items():
        if key != "attention" and not value > 0:
            raise UserError(f"{name}: expected {key} above 0, found {value}")
    try:
        model = MODELS[name].make(num_classes, zoo.Shared(**shared), **values)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    initialize(model)
    return model


KINDS = {
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "a name"),
    bool: (bool, "a boolean"),
}


def _check_kind(name: str, key: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the argument's default."""
    kind, described = KINDS[type(default)]
    if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
        raise UserError(f"{name}: expected {described} as {key}, found {value!r}")


def initialize(model: nn.Module) -> None:
    """Fresh weights: He's normal initialization for convolutions and linear layers, a small one for the last.

    Fan-out for convolutions, as R3D was published; C3D's have no norm behind them and start by fan-in. Attention keeps
    PyTorch's smaller weights, as SE, FcaNet and CBAM were published: by He's, FAM's logits spread by 4 to 7 and a third
    of its gates are all but shut or open before anything is learned.
    """
    gates = {layer for gate in model.modules() if isinstance(gate, zoo.GATES) for layer in gate.modules()}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv3d | nn.Linear) and m not in gates]
    for layer in layers:
        normed = isinstance(layer, nn.Conv3d) and layer.bias is None
        nn.init.kaiming_normal_(layer.weight, mode="fan_out" if normed else "fan_in", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.01)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds for one input C T H W as the layers are defined, by a counter that counts two for each."""
    from torch.utils.flop_counter import FlopCounterMode  # here: networks are made without it

    model = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, *input_shape, device="meta"))
    return counter.get_total_flops() // 2


def kernel_exceeds_frames(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Whether some plain convolution of stride 1 in time has more taps than its input, for one input C T H W, frames.

    On CPUs torch 2.13 leaves gradients of such kernels partly unwritten in bf16; `Conv3x3x3` and SAM go round that.
    """
    model, found = copy.deepcopy(model).to("meta").eval(), []

    def look(conv: nn.Module, kwargs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv3d)
        found.append(1 < kwargs[0].shape[2] < conv.kernel_size[0] and conv.stride[0] == 1)

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
    input: tuple[int, ...]


def summarize(name: str, num_classes: int = 101, **kwargs: Any) -> ModelSummary:
    """Size and cost of a network, counted on the meta device: nothing is allocated or computed."""
    with torch.device("meta"):
        model: Any = create_model(name, num_classes, **kwargs)
        shape = model.input_shape
        return ModelSummary(name, count_parameters(model), count_macs(model, shape), tuple(shape))
