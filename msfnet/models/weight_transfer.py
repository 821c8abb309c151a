"""Transfer of the weights of a trained R3D into the MSF blocks of an MSF-R3D.

An MSL has small kernels where R3D has a dense one, and an MSF block adds X to what R3D adds. Every convolution of an
MSF block starts from a slice of the dense kernel in its place, and norms are set by moment matching: so that means and
variances after every block are those of R3D. The moments need no data. A trained batch norm says the mean and the
variance of its output; the input of a ReLU is assumed to be normally distributed, and channels to be uncorrelated.

This module is independent of files and of the names of networks.
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

# A norm inside MSL starts with this bias and a weight of one, so that its ReLU, which R3D does not have there, passes
# 98 % of its input; training lowers the bias where that helps.
BRANCH_BIAS = 2.0
# The share of the second norm's variance that is left to Y where X alone has as much or more.
MIN_SHARE = 0.25
# Mean and variance of the largest of eight independent standard normal values, and the correlation between neighbors.
MAX_OF_8, CORRELATION = (1.4236, 0.3729), 0.5


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel: C and C."""

    mean: Tensor
    var: Tensor

    def __getitem__(self, channels: slice) -> Moments:
        return Moments(self.mean[channels], self.var[channels])

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the sum of two uncorrelated values."""
        return Moments(self.mean + other.mean, self.var + other.var)

    @staticmethod
    def concat(*parts: Moments) -> Moments:
        """Return the moments of concatenated channels."""
        return Moments(torch.cat([part.mean for part in parts]), torch.cat([part.var for part in parts]))

    def relu(self) -> Moments:
        """Return the moments of relu(z) for normally distributed z: the rectified normal distribution."""
        std = self.var.clamp_min(1e-12).sqrt()
        z = self.mean / std
        positive, density = torch.special.ndtr(z), torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        mean = self.mean * positive + std * density
        square = (self.mean**2 + self.var) * positive + self.mean * std * density
        return Moments(mean, (square - mean**2).clamp_min(0))

    def max_pool(self) -> Moments:
        """Return the moments of the maximum of 2x2x2 values z, normally distributed and equally correlated."""
        mean, var = MAX_OF_8
        std = ((1 - CORRELATION) * self.var).sqrt()
        return Moments(self.mean + mean * std, (CORRELATION + (1 - CORRELATION) * var) * self.var)


@dataclass(frozen=True)
class ConvNorm:
    """A trained convolution and the batch norm after it."""

    kernel: Tensor  # C_out C_in T H W
    weight: Tensor
    bias: Tensor
    norm_input: Moments  # the running statistics

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str) -> ConvNorm:
        statistics = Moments(state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"])
        return cls(state[f"{name}.0.weight"], state[f"{name}.1.weight"], state[f"{name}.1.bias"], statistics)

    @property
    def output(self) -> Moments:
        return Moments(self.bias, self.weight**2)


@dataclass(frozen=True)
class Transferred:
    """Weights for a network: `copied` unchanged, or `adapted`, that is sliced, rescaled or computed."""

    copied: State = field(default_factory=dict)
    adapted: State = field(default_factory=dict)

    def __or__(self, other: Transferred) -> Transferred:
        return Transferred(self.copied | other.copied, self.adapted | other.adapted)

    def under(self, name: str) -> Transferred:
        """Return the same with `name.` before every key."""
        copied, adapted = ({f"{name}.{k}": value for k, value in part.items()} for part in (self.copied, self.adapted))
        return Transferred(copied, adapted)


def is_r3d(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is that of an R3D: its first block has two 3x3x3 kernels."""
    kernels = [state.get(f"layer1.0.{conv}.0.weight") for conv in ("conv1", "conv2")]
    return all(kernel is not None and kernel.shape[2:] == (3, 3, 3) for kernel in kernels)


def accepts_r3d(model: nn.Module) -> bool:
    """Return whether a network is an MSF-R3D, of any placement and number of splits."""
    return isinstance(model, ResNet3D) and isinstance(model.layer1[0], MSFBlock)


def msf_blocks(model: nn.Module) -> dict[str, MSFBlock]:
    """Return the MSF blocks of a network by their names, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MSFBlock)}


def r3d_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of the R3D whose weights `transfer_r3d` needs for `model`, without its last layer."""
    own = model.state_dict()
    shapes = {f"stem.{key}": tuple(own[f"stem.{key}"].shape) for key in ("0.weight", *(f"1.{key}" for key in NORM))}
    c_in = len(own["stem.1.bias"])
    for name, block in msf_blocks(model).items():
        c_out = len(own[f"{name}.conv1.1.bias"])
        convs = {"conv1": (c_out, c_in, 3, 3, 3), "conv2": (c_out, c_out, 3, 3, 3)}
        if block.downsample is not None:
            convs["downsample"] = (c_out, c_in, 1, 1, 1)
        for conv, kernel in convs.items():
            shapes[f"{name}.{conv}.0.weight"] = kernel
            shapes |= {f"{name}.{conv}.1.{key}": (c_out,) for key in NORM}
        c_in = c_out
    return shapes


def transfer_r3d(model: nn.Module, r3d: Mapping[str, Tensor]) -> Transferred:
    """Return the weights of an MSF-R3D from those of a trained R3D.

    Args:
        model: The MSF-R3D; it is not changed.
        r3d: A state dict with the keys and shapes of `r3d_shapes(model)`.

    Returns:
        Weights by the keys of `model`. Keys of it that have no counterpart in R3D are not among them.
    """
    result = Transferred({key: value for key, value in r3d.items() if key.startswith("stem.")})
    before_relu = ConvNorm.of(r3d, "stem").output
    for name, block in msf_blocks(model).items():
        first, second = ConvNorm.of(r3d, f"{name}.conv1"), ConvNorm.of(r3d, f"{name}.conv2")
        x = shortcut = before_relu.relu()
        if block.downsample is not None:
            strided = ConvNorm.of(r3d, f"{name}.downsample")
            result |= _shortcut(strided, x, before_relu.max_pool().relu()).under(f"{name}.downsample")
            shortcut = strided.output
        result |= _first(block.conv1[0], first, x).under(f"{name}.conv1")
        result |= _second(block.conv2[0], second, first.output.relu()).under(f"{name}.conv2")
        before_relu = shortcut + second.output
    return result


# The parts of a block; keys start at the part


def _first(module: nn.Module, dense: ConvNorm, x: Moments) -> Transferred:
    """Return the first convolution and its norm, which stays as it was trained: X is what it was in R3D."""
    convolution, norm_input = _convolution(module, dense, x)
    affine = {"1.weight": dense.weight, "1.bias": dense.bias}
    running = _running("1", norm_input) if norm_input else {}
    unchanged = isinstance(module, nn.Conv3d)  # then the input of the norm is that of R3D's
    return convolution.under("0") | (Transferred(affine | running) if unchanged else Transferred(affine, running))


def _second(module: nn.Module, dense: ConvNorm, x: Moments) -> Transferred:
    """Return the second convolution and its norm, with which X + Y has the mean and variance that Y alone had in R3D.

    The channels that MSL passes unchanged are X itself, so there the standard deviations add up; elsewhere X and Y
    count as uncorrelated, and the variances do.
    """
    convolution, norm_input = _convolution(module, dense, x)
    var = dense.weight**2
    weight = dense.weight.sign() * torch.maximum(var - x.var, MIN_SHARE * var).sqrt()
    if isinstance(module, MSL):
        passed = slice(module.sizes[0])
        weight[passed] = dense.weight[passed].abs() - x.var[passed].sqrt()
    norm = {"1.weight": weight, "1.bias": dense.bias - x.mean}
    running = _running("1", norm_input) if norm_input else {}
    return convolution.under("0") | Transferred(adapted=norm | running)


def _shortcut(dense: ConvNorm, strided: Moments, pooled: Moments) -> Transferred:
    """Return path B: R3D's kernel fits, but its input is the maximum of eight values instead of one."""
    kernel = dense.kernel.sum((2, 3, 4))  # C_out C_in
    mean = dense.norm_input.mean + kernel @ (pooled.mean - strided.mean)
    ratio = _output_var(dense.kernel, pooled) / _output_var(dense.kernel, strided).clamp_min(1e-12)
    copied = {"1.weight": dense.kernel, "2.weight": dense.weight, "2.bias": dense.bias}
    return Transferred(copied, _running("2", Moments(mean, dense.norm_input.var * ratio)))


def _convolution(module: nn.Module, dense: ConvNorm, inputs: Moments) -> tuple[Transferred, Moments | None]:
    """Return the weights of what replaces a 3x3x3 convolution, and the moments of its output, or None where not known.

    Where that is several convolutions in sequence, the first gets the middle of the dense kernel, and the others, which
    have no counterpart in R3D, stay randomly initialized.
    """
    if isinstance(module, nn.Conv3d):
        return Transferred({"weight": dense.kernel}), dense.norm_input
    if isinstance(module, MSL):
        return _msl(module, dense, inputs)
    first = cast(nn.Conv3d, cast(nn.Sequential, module)[0])
    middle = tuple(slice(None) if own > 1 else slice(1, 2) for own in first.kernel_size)
    part = dense.kernel[(slice(None), slice(None), *middle)]
    return Transferred(adapted={"0.weight": _rescaled(part, inputs, _output_var(dense.kernel, inputs))}), None


def _msl(msl: MSL, dense: ConvNorm, inputs: Moments) -> tuple[Transferred, Moments]:
    """Return the kernels of MSL, each a square slice of the dense kernel.

    The channels of a slice are those of the branch's split and, before them, as many as the previous branch passed on.
    So the outputs that a branch keeps have the channel numbers of the dense kernel's, and a channel that was passed on
    is treated as the one of its own number.
    """
    adapted: State = {}
    dense_var = _output_var(dense.kernel, inputs)
    start = msl.sizes[0]
    outputs, carry = [inputs[:start]], inputs[:0]
    for i, size in enumerate(msl.sizes[1:]):
        end, width = start + size, size + len(carry.mean)
        rows = slice(end - width, end)
        columns = [*range(start, end), *range(end - width, start)]  # the split first, what was passed on after it
        branch_inputs = Moments.concat(inputs[start:end], carry)
        kernel = _rescaled(dense.kernel[rows, columns], branch_inputs, dense_var[rows])
        mean = kernel.sum((2, 3, 4)) @ branch_inputs.mean
        y = Moments(torch.full((width,), BRANCH_BIAS), torch.ones(width))
        adapted |= {f"branches.{i}.0.weight": kernel, f"branches.{i}.1.weight": y.var, f"branches.{i}.1.bias": y.mean}
        adapted |= _running(f"branches.{i}.1", Moments(mean, dense.norm_input.var[rows]))
        kept = width if i == len(msl.branches) - 1 else width - width // 2
        y = y.relu()
        outputs, carry, start = [*outputs, y[:kept]], y[kept:], end
    return Transferred(adapted=adapted), Moments.concat(*outputs)


def _output_var(kernel: Tensor, inputs: Moments) -> Tensor:
    """Return the variance of each output channel for uncorrelated inputs: C_out."""
    return kernel.pow(2).sum((2, 3, 4)) @ inputs.var


def _rescaled(part: Tensor, inputs: Moments, var: Tensor) -> Tensor:
    """Return a slice of a dense kernel, each output channel scaled to the variance that it had with all inputs."""
    scale = (var / _output_var(part, inputs).clamp_min(1e-12)).sqrt()
    return part * scale[:, None, None, None, None]


def _running(norm: str, moments: Moments) -> State:
    """Return the running statistics by their keys."""
    return {f"{norm}.running_mean": moments.mean, f"{norm}.running_var": moments.var}
