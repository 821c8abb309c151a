"""Activation recomputation: cheap activations are recomputed in the backward pass instead of saved for it.

A convolution is expensive; the batch norm, ReLU and concatenation after it are cheap. Autograd nevertheless saves the
output of each for backward. Within `recompute_activations` only the convolutions' outputs (the pre-activations) are
saved: layers register how a tensor is recomputed from them, and wherever autograd would save such a tensor, it saves
that function instead. Values and gradients are identical bit for bit.

Activation checkpointing (Chen et al., 2016; `training.checkpointing`) recomputes whole blocks, convolutions included:
it saves more memory and costs a second forward pass.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def is_tracing() -> bool:
    """Return whether torch.compile, torch.export or torch.jit.trace records the network at the moment.

    Layers then use the plain PyTorch operations they are defined by, which compilers and other runtimes optimize
    themselves.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


Recompute = Callable[[int, int], Tensor]  # (first channel, number of channels) -> those channels of the tensor
_state = threading.local()  # .registry: that of this thread's innermost `recompute_activations`


class _Registry:
    """How to recompute the tensors that are alive, by the address of their memory; a freed tensor loses its entry."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[weakref.ref[Tensor], Recompute]] = {}

    def register(self, tensor: Tensor, recompute: Recompute) -> None:
        address = tensor.untyped_storage().data_ptr()
        if not address:  # tensors on the meta device have no memory
            return
        self.entries[address] = weakref.ref(tensor, lambda _: self.entries.pop(address, None)), recompute

    def pack(self, x: Tensor) -> Any:
        """Return what autograd saves for `x`: `x` itself, or how to recompute its slice of channels."""
        entry = self.entries.get(x.untyped_storage().data_ptr())
        return x if entry is None else (entry[1], x.storage_offset() // x.stride(1), x.shape)


def unpack(saved: Any) -> Tensor:
    """Return the tensor that `_Registry.pack` was called with."""
    if isinstance(saved, Tensor):
        return saved
    recompute, first, shape = saved
    return recompute(first, shape[1]).reshape(shape)


@contextmanager
def recompute_activations(enabled: bool) -> Iterator[None]:
    """Context in which registered activations are recomputed in the backward pass instead of saved for it.

    Args:
        enabled: False changes nothing, so that callers need no branch.
    """
    if not enabled or is_tracing():
        yield
        return
    outer, registry = getattr(_state, "registry", None), _Registry()
    _state.registry = registry
    try:
        with torch.autograd.graph.saved_tensors_hooks(registry.pack, unpack):
            yield
    finally:
        _state.registry = outer


def _registry() -> _Registry | None:
    """Return the registry of the innermost `recompute_activations`, if any."""
    return None if is_tracing() else getattr(_state, "registry", None)


class ConvNormReLU(nn.Sequential):
    """relu(norm(conv(x))), of which `recompute_activations` saves the convolution's output alone.

    Args:
        conv: Convolution N c_in T H W -> N channels T' H' W'.
        channels: Channels of its output.
    """

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__(conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _ = self
        return norm_relu(norm, conv(x))


def norm_relu(norm: nn.Module, z: Tensor) -> Tensor:
    """Return relu(norm(z)) of the pre-activations `z`; norms other than `nn.BatchNorm3d` are not recomputed."""
    y = norm(z)
    registry = _registry()
    if registry is None or type(norm) is not nn.BatchNorm3d:
        return F.relu_(y)
    saved, weight, bias, eps = z.detach(), norm.weight.detach(), norm.bias.detach(), norm.eps

    def recompute(first: int, count: int) -> Tensor:
        own = slice(first, first + count)
        part = saved if count == saved.shape[1] else saved[:, own].clone()  # batch norm is slow on slices
        return F.relu_(F.batch_norm(part, None, None, weight[own], bias[own], True, 0.0, eps))

    registry.register(y, recompute)
    result: Tensor = _ReLU.apply(y)  # type: ignore[no-untyped-call]
    return result


def concat_channels(parts: list[Tensor]) -> Tensor:
    """Concatenate N c T H W along the channels: N C T H W."""
    fast = parts[0].device.type == "cpu" and not is_tracing()
    y: Tensor = _Concat.apply(*parts) if fast else torch.cat(parts, dim=1)  # type: ignore[no-untyped-call]
    if registry := _registry():
        saved = [registry.pack(part.detach()) for part in parts]
        registry.register(y, lambda first, count: _concat([unpack(part) for part in saved]).narrow(1, first, count))
    return y


def _concat(parts: Sequence[Tensor]) -> Tensor:
    """Do torch.cat along the channels, several times faster if parts are slices of channels-last tensors."""
    n, _, *positions = parts[0].shape
    layout = torch.channels_last_3d if parts[0].stride(1) == 1 else torch.contiguous_format
    widths = [part.shape[1] for part in parts]
    y = torch.empty(n, sum(widths), *positions, dtype=parts[0].dtype, device=parts[0].device, memory_format=layout)
    for own, part in zip(y.split(widths, dim=1), parts, strict=True):
        own.copy_(part)
    return y


class _Concat(torch.autograd.Function):
    """Concatenation whose gradients are copies instead of slices, on which most operations are slow."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[1] for part in parts]
        return _concat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in grad.split(ctx.widths, dim=1))


class _ReLU(torch.autograd.Function):
    """In-place ReLU whose gradient has the memory layout of its output; the gradient of a slice is slow otherwise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.relu_())
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        aligned = grad if grad.stride() == y.stride() else torch.empty_like(y).copy_(grad)
        return torch.ops.aten.threshold_backward(aligned, y, 0)
