"""Whether a network is run, or written down to be run by something else.

Training with less memory: what norms, ReLUs and concatenations make is made again instead of kept.

A convolution's output is expensive, and norm and ReLU of it are cheap; yet autograd keeps both, and every concatenation
beside its parts. Within `lean`, layers note how a tensor can be made again (`note`), and wherever autograd would keep
one of these it keeps the note. Values and gradients stay the same to the last bit.
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


def traced() -> bool:
    """While torch.compile, torch.export or torch.jit.trace look on: then layers do what they are, without our ways
    of doing it faster, which compilers and other runtimes would have to see through."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


Again = Callable[[int, int], Tensor]  # from the first channel and how many of them
_state = threading.local()  # .notes: of the innermost `lean` of this thread


class _Notes:
    """How to make the tensors that are alive, by the address of their memory; the note goes with the tensor."""

    def __init__(self) -> None:
        self.again: dict[int, tuple[weakref.ref[Tensor], Again]] = {}

    def add(self, made: Tensor, again: Again) -> None:
        address = made.untyped_storage().data_ptr()
        if not address:  # on the meta device nothing has one
            return
        self.again[address] = weakref.ref(made, lambda _: self.again.pop(address, None)), again

    def pack(self, x: Tensor) -> Any:
        note = self.again.get(x.untyped_storage().data_ptr())
        return x if note is None else (note[1], x.storage_offset() // x.stride(1), x.shape)


def unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    again, first, shape = kept
    return again(first, shape[1]).reshape(shape)


@contextmanager
def lean(wanted: bool) -> Iterator[None]:
    """Within, if `wanted`, autograd keeps notes in place of the tensors that have one."""
    if not wanted or traced():
        yield
        return
    before, notes = getattr(_state, "notes", None), _Notes()
    _state.notes = notes
    try:
        with torch.autograd.graph.saved_tensors_hooks(notes.pack, unpack):
            yield
    finally:
        _state.notes = before


def _notes() -> _Notes | None:
    return None if traced() else getattr(_state, "notes", None)


class ConvNormReLU(nn.Sequential):
    """relu(norm(conv(x))), of which `lean` keeps the convolution's output alone."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__(conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _ = self
        return norm_relu(norm, conv(x))


def norm_relu(norm: nn.Module, z: Tensor) -> Tensor:
    y = norm(z)
    notes = _notes()
    if notes is None or type(norm) is not nn.BatchNorm3d:
        return F.relu_(y)
    kept, weight, bias, eps = z.detach(), norm.weight.detach(), norm.bias.detach(), norm.eps

    def again(first: int, count: int) -> Tensor:
        own = slice(first, first + count)
        part = kept if count == kept.shape[1] else kept[:, own].clone()  # norms are slow on slices
        return F.relu_(F.batch_norm(part, None, None, weight[own], bias[own], True, 0.0, eps))

    notes.add(y, again)
    result: Tensor = _ReLU.apply(y)  # type: ignore[no-untyped-call]
    return result


def join(parts: list[Tensor]) -> Tensor:
    """The parts N c T H W side by side: N C T H W."""
    fast = parts[0].device.type == "cpu" and not traced()
    y: Tensor = _Join.apply(*parts) if fast else torch.cat(parts, dim=1)  # type: ignore[no-untyped-call]
    if notes := _notes():
        kept = [notes.pack(part.detach()) for part in parts]
        notes.add(y, lambda first, count: _side_by_side([unpack(part) for part in kept]).narrow(1, first, count))
    return y


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """torch.cat by channel, several times faster where parts are slices of channels-last tensors."""
    n, _, *place = parts[0].shape
    layout = torch.channels_last_3d if parts[0].stride(1) == 1 else torch.contiguous_format
    widths = [part.shape[1] for part in parts]
    y = torch.empty(n, sum(widths), *place, dtype=parts[0].dtype, device=parts[0].device, memory_format=layout)
    for own, part in zip(y.split(widths, dim=1), parts, strict=True):
        own.copy_(part)
    return y


class _Join(torch.autograd.Function):
    """Concatenation by channel whose gradients are no slices: most operations are slow on those."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[1] for part in parts]
        return _side_by_side(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in grad.split(ctx.widths, dim=1))


class _ReLU(torch.autograd.Function):
    """ReLU in place, whose gradient is laid out as its output: a slice's is slow to go through otherwise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.relu_())
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        alike = grad if grad.stride() == y.stride() else torch.empty_like(y).copy_(grad)
        return torch.ops.aten.threshold_backward(alike, y, 0)
