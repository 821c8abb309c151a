"""From a trained R3D to MSF-R3D: every convolution of ours starts from its part of the dense one that it replaces.

A multilevel split has small kernels where R3D has a dense one, and an MSF block adds X to what R3D adds up. What
follows for means and variances is worked out from the trained norms, without a single clip: a norm says what leaves
it, and what enters a ReLU is taken as normally distributed. Knows blocks and tensors, no file and no network's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from msfnet.layers.msl import MSL
from msfnet.models.blocks import MSFBlock
from msfnet.models.resnet3d import ResNet3D

State = dict[str, Tensor]
NORM = ("weight", "bias", "running_mean", "running_var")

# A norm inside a split starts with this bias and a weight of one, so that its ReLU, which R3D does not have at that
# place, lets 98 % of its input through; training closes it where that helps.
OPEN = 2.0
# Of a second norm's variance, what is left to Y where X alone has as much or more.
SMALLEST_SHARE = 0.25
# Mean and variance of the largest of eight standard normal values; neighbors in a map correlate by about a half.
LARGEST_OF_8, NEIGHBORS = (1.4236, 0.3729), 0.5


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel: C and C."""

    mean: Tensor
    var: Tensor

    def __getitem__(self, channels: slice) -> Moments:
        return Moments(self.mean[channels], self.var[channels])

    def __add__(self, other: Moments) -> Moments:
        """Of the sum of two that know nothing of each other."""
        return Moments(self.mean + other.mean, self.var + other.var)

    @staticmethod
    def joined(*parts: Moments) -> Moments:
        """Of channels behind each other."""
        return Moments(torch.cat([part.mean for part in parts]), torch.cat([part.var for part in parts]))

    def rectified(self) -> Moments:
        """Of relu(z) for normally distributed z."""
        std = self.var.clamp_min(1e-12).sqrt()
        z = self.mean / std
        above, density = torch.special.ndtr(z), torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        mean = self.mean * above + std * density
        square = (self.mean**2 + self.var) * above + self.mean * std * density
        return Moments(mean, (square - mean**2).clamp_min(0))

    def pooled(self) -> Moments:
        """Of the largest z in 2x2x2 places, for normally distributed z."""
        mean, var = LARGEST_OF_8
        return Moments(
            self.mean + mean * ((1 - NEIGHBORS) * self.var).sqrt(), (NEIGHBORS + (1 - NEIGHBORS) * var) * self.var
        )


@dataclass(frozen=True)
class Unit:
    """A trained convolution and the norm behind it."""

    kernel: Tensor  # C_out C_in T H W
    weight: Tensor
    bias: Tensor
    entering: Moments  # the norm, as its running statistics have it

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str) -> Unit:
        entering = Moments(state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"])
        return cls(state[f"{name}.0.weight"], state[f"{name}.1.weight"], state[f"{name}.1.bias"], entering)

    @property
    def leaving(self) -> Moments:
        return Moments(self.bias, self.weight**2)


@dataclass(frozen=True)
class Taken:
    """What a network takes from another: `copied` as it was, `fitted` sliced, rescaled or worked out anew."""

    copied: State = field(default_factory=dict)
    fitted: State = field(default_factory=dict)

    def __or__(self, other: Taken) -> Taken:
        return Taken(self.copied | other.copied, self.fitted | other.fitted)

    def below(self, name: str) -> Taken:
        """The same with keys under `name`."""
        copied, fitted = ({f"{name}.{k}": value for k, value in part.items()} for part in (self.copied, self.fitted))
        return Taken(copied, fitted)


def is_dense(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of an R3D: two 3x3x3 kernels in its first block."""
    kernels = [state.get(f"layer1.0.{conv}.0.weight") for conv in ("conv1", "conv2")]
    return all(kernel is not None and kernel.shape[2:] == (3, 3, 3) for kernel in kernels)


def takes_dense(model: nn.Module) -> bool:
    """Whether a network is R3D with MSF blocks, of any placement and number of groups."""
    return isinstance(model, ResNet3D) and isinstance(model.layer1[0], MSFBlock)


def msf_blocks(model: nn.Module) -> dict[str, MSFBlock]:
    """The blocks of a network by their names, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MSFBlock)}


def dense_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The keys and shapes that a trained R3D must have to become `model`, its last layer and counters aside."""
    own = model.state_dict()
    shapes = {f"stem.{key}": tuple(own[f"stem.{key}"].shape) for key in ("0.weight", *(f"1.{key}" for key in NORM))}
    c_in = len(own["stem.1.bias"])
    for name, block in msf_blocks(model).items():
        c_out = len(own[f"{name}.conv1.1.bias"])
        units = {"conv1": (c_out, c_in, 3, 3, 3), "conv2": (c_out, c_out, 3, 3, 3)}
        if block.downsample is not None:
            units["downsample"] = (c_out, c_in, 1, 1, 1)
        for unit, kernel in units.items():
            shapes[f"{name}.{unit}.0.weight"] = kernel
            shapes |= {f"{name}.{unit}.1.{key}": (c_out,) for key in NORM}
        c_in = c_out
    return shapes


def transplant(model: nn.Module, dense: Mapping[str, Tensor]) -> Taken:
    """What an MSF-R3D takes from a trained R3D of `dense_shapes`; `model` is not changed.

    Keys of it that are neither copied nor fitted have no counterpart in R3D.
    """
    taken = Taken({key: value for key, value in dense.items() if key.startswith("stem.")})
    before_relu = Unit.of(dense, "stem").leaving
    for name, block in msf_blocks(model).items():
        first, second = Unit.of(dense, f"{name}.conv1"), Unit.of(dense, f"{name}.conv2")
        x = shortcut = before_relu.rectified()
        if block.downsample is not None:
            path_b = Unit.of(dense, f"{name}.downsample")
            taken |= _path_b(path_b, x, before_relu.pooled().rectified()).below(f"{name}.downsample")
            shortcut = path_b.leaving
        taken |= _path_a(block.conv1[0], first, x).below(f"{name}.conv1")
        taken |= _beside(block.conv2[0], second, first.leaving.rectified()).below(f"{name}.conv2")
        before_relu = shortcut + second.leaving
    return taken


# The parts of a block; keys count from the part


def _path_a(slot: nn.Module, unit: Unit, x: Moments) -> Taken:
    """The first convolution, whose norm stays as it was trained: X is what it was in R3D."""
    convolution, entering = _convolution(slot, unit, x)
    affine = {"1.weight": unit.weight, "1.bias": unit.bias}
    running = _running("1", entering) if entering else {}
    same = isinstance(slot, nn.Conv3d)  # then what enters the norm is what entered it in R3D
    return convolution.below("0") | (Taken(affine | running) if same else Taken(affine, running))


def _beside(slot: nn.Module, unit: Unit, x: Moments) -> Taken:
    """The second convolution, whose norm is such that X + Y has the mean and variance that Y alone had in R3D.

    Channels that a split passes through are X once more, so there the standard deviations add up; elsewhere X and Y
    count as unrelated and the variances do.
    """
    convolution, entering = _convolution(slot, unit, x)
    power = unit.weight**2
    weight = unit.weight.sign() * torch.maximum(power - x.var, SMALLEST_SHARE * power).sqrt()
    if isinstance(slot, MSL):
        passed = slice(slot.sizes[0])
        weight[passed] = unit.weight[passed].abs() - x.var[passed].sqrt()
    norm = {"1.weight": weight, "1.bias": unit.bias - x.mean}
    return convolution.below("0") | Taken(fitted=norm | (_running("1", entering) if entering else {}))


def _path_b(unit: Unit, strided: Moments, pooled: Moments) -> Taken:
    """The shortcut: R3D's kernel fits, but reads the largest of eight values instead of every eighth."""
    kernel = unit.kernel.sum((2, 3, 4))  # C_out C_in
    mean = unit.entering.mean + kernel @ (pooled.mean - strided.mean)
    var = unit.entering.var * _power(unit.kernel, pooled) / _power(unit.kernel, strided).clamp_min(1e-12)
    norm = {"1.weight": unit.kernel, "2.weight": unit.weight, "2.bias": unit.bias}
    return Taken(norm, _running("2", Moments(mean, var)))


def _convolution(slot: nn.Module, unit: Unit, inputs: Moments) -> tuple[Taken, Moments | None]:
    """What stands in the place of a 3x3x3 convolution, and the moments of what leaves it (None: not known).

    Where that is several convolutions, the first takes the middle of the dense kernel, and the others, which R3D has
    nothing like, stay fresh.
    """
    if isinstance(slot, nn.Conv3d):
        return Taken({"weight": unit.kernel}), unit.entering
    if isinstance(slot, MSL):
        return _split(slot, unit, inputs)
    first = cast(nn.Conv3d, cast(nn.Sequential, slot)[0])
    middle = tuple(slice(None) if own > 1 else slice(1, 2) for own in first.kernel_size)
    part = unit.kernel[(slice(None), slice(None), *middle)]
    return Taken(fitted={"0.weight": _rescaled(part, inputs, _power(unit.kernel, inputs))}), None


def _split(split: MSL, unit: Unit, inputs: Moments) -> tuple[Taken, Moments]:
    """The kernels of a multilevel split, each the square of the dense kernel on the channels that it is about.

    Those are the channels of its own part of the input and, before them, as many as the level above handed on: the
    outputs it keeps then lie where the dense kernel had them, and a channel handed on stands for its own number.
    """
    fitted: State = {}
    power = _power(unit.kernel, inputs)
    start = split.sizes[0]
    leaving, carry = [inputs[:start]], inputs[:0]
    for i, size in enumerate(split.sizes[1:]):
        end, width = start + size, size + len(carry.mean)
        rows = slice(end - width, end)
        columns = [*range(start, end), *range(end - width, start)]  # its part first, what was handed on behind it
        entering = Moments.joined(inputs[start:end], carry)
        kernel = _rescaled(unit.kernel[rows, columns], entering, power[rows])
        mean = kernel.sum((2, 3, 4)) @ entering.mean
        y = Moments(torch.full((width,), OPEN), torch.ones(width))
        fitted |= {f"branches.{i}.0.weight": kernel, f"branches.{i}.1.weight": y.var, f"branches.{i}.1.bias": y.mean}
        fitted |= _running(f"branches.{i}.1", Moments(mean, unit.entering.var[rows]))
        kept = width if i == len(split.branches) - 1 else width - width // 2
        y = y.rectified()
        leaving, carry, start = [*leaving, y[:kept]], y[kept:], end
    return Taken(fitted=fitted), Moments.joined(*leaving)


def _power(kernel: Tensor, inputs: Moments) -> Tensor:
    """The variance that each output channel gets from inputs that know nothing of each other: C_out."""
    return kernel.pow(2).sum((2, 3, 4)) @ inputs.var


def _rescaled(part: Tensor, inputs: Moments, power: Tensor) -> Tensor:
    """A part of a dense kernel, each output channel scaled to the `power` that it had from all inputs."""
    scale = (power / _power(part, inputs).clamp_min(1e-12)).sqrt()
    return part * scale[:, None, None, None, None]


def _running(norm: str, entering: Moments) -> State:
    return {f"{norm}.running_mean": entering.mean, f"{norm}.running_var": entering.var}
