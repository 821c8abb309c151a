"""Batch norms folded into the convolutions before them, for networks that are run and no longer trained.

In evaluation mode a batch norm is an affine map of each channel, so that it can be absorbed by the convolution:

    norm(w * x + b) = (s w) * x + s (b - mean) + beta        s = gamma / sqrt(variance + eps)
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import torch
from torch import nn

from msfnet.layers.recomputation import ConvNormReLU
from msfnet.layers.winograd import Conv3x3x3

Step = tuple[nn.Module, str, nn.Module]  # a container, and the name and the module of one of its children


def fold_norms(network: nn.Module) -> None:
    """Fold every `nn.BatchNorm3d` that directly follows a convolution in an `nn.Sequential`, in place.

    An `nn.Sequential`, nested ones included, is assumed to be called as a whole. Modules that may compute
    something else than their base class are not changed: subclasses of convolutions and of `nn.Sequential`, modules
    with hooks or parametrizations, convolutions that are used in several places, and norms without running statistics.

    Args:
        network: Any network in evaluation mode. The norms become `nn.Identity`, its outputs change by rounding alone.
    """
    uses = Counter(id(child) for module in network.modules() for child in module._modules.values())
    for sequence in [module for module in network.modules() if _runs_in_order(module)]:
        for (_, _, conv), (container, name, norm) in pairwise(_steps(sequence)):
            if not (is_plain_conv(conv) and type(norm) is nn.BatchNorm3d and norm.running_mean is not None):
                continue
            if uses[id(conv)] == 1 and not _has_hooks(norm):
                _fold(conv, norm)
                container._modules[name] = nn.Identity()


def is_plain_conv(module: nn.Module) -> bool:
    """Return whether a module computes exactly what `nn.Conv3d` computes: nothing is overridden or hooked."""
    return type(module) in (nn.Conv3d, Conv3x3x3) and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _runs_in_order(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, ConvNormReLU)


def _steps(sequence: nn.Module) -> list[Step]:
    """Return the modules of a sequence in the order in which they run, those of nested sequences in place of these."""
    steps: list[Step] = []
    for name, child in sequence._modules.items():
        if child is not None:
            steps += _steps(child) if _runs_in_order(child) else [(sequence, name, child)]
    return steps


def _fold(conv: nn.Module, norm: nn.BatchNorm3d) -> None:
    """Fold a norm into a convolution in double precision, rounded once."""
    assert isinstance(conv, nn.Conv3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = shift * scale + norm.bias.double() if norm.affine else shift * scale
    dtype, weight = conv.weight.dtype, conv.weight.double() * scale[:, None, None, None, None]  # K C/groups T H W
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
