"""A 3x3x3 convolution with half the multiplications: Winograd's minimal filtering, over time alone.

A 3x3x3 convolution is three 3x3 convolutions an output frame, of the frames before, at and after it. The algorithm of
Toom and Cook, which Winograd (1980) proved minimal, makes four output frames of six such convolutions where the
definition takes twelve:

    y = A [(G w) * (B x)]        w: the 3 taps; x: 6 frames; *: a 3x3 convolution for each of six; y: 4 frames

A, G and B only scale and add. The first and the last of the six frames are the neighboring tiles', or zero beyond the
clip, so that B of all tiles is one small matrix from T frames to 6 T / 4. Space is left alone: there, libraries'
convolutions are near the machine's peak, and they do the work here too.

It is exact but for rounding, two to three times that of the definition: 1e-6 of the output in 32 bits, 6e-3 in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msfnet.layers.recomputation import traced

# Where polynomials are evaluated, beside infinity: of the points that leave B exact in bf16, these round least.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
TILE = len(POINTS) - 1  # output frames
PRODUCTS = len(POINTS) + 1  # convolutions that make them
CHUNK_BYTES = 2**24  # clips go through together while their transformed frames fit into this much of the cache

# Multiply-adds of a clip from which on the transforms cost less than they save, by the element type.
WORTHWHILE_MACS = {torch.float32: 2e7, torch.float64: 2e7, torch.bfloat16: 1e9}


class Conv3x3x3(nn.Conv3d):
    """nn.Conv3d with a 3x3x3 kernel, stride and padding 1, faster on CPUs: N C T H W -> N c_out T H W.

    Checkpoint, results and gradients are those of nn.Conv3d. Minimal filtering is used where it pays: on CPUs, for clips
    of more than two frames and maps of some size.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = False) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or traced():
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        frames = x.shape[2]
        # oneDNN leaves gradients of bf16 kernels that are longer than the clip partly unwritten (torch 2.13).
        if frames == 1 or (frames == 2 and dtype == torch.bfloat16 and torch.is_grad_enabled()):
            return flat_convolution(x, self.weight, self.bias)
        if not pays(x.shape, self.out_channels, dtype):
            return super().forward(x)
        y: Tensor = _Convolution.apply(x.to(dtype), self.weight)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias[:, None, None, None]


def pays(shape: torch.Size, c_out: int, dtype: torch.dtype) -> bool:
    """Whether minimal filtering is faster for inputs of this shape N C T H W: a property of the clip, not of N."""
    _, channels, frames, height, width = shape
    macs = 27 * channels * c_out * frames * height * width
    return frames > 2 and macs > WORTHWHILE_MACS.get(dtype, float("inf"))


def flat_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The 3x3x3 convolution of one or two frames as a 3x3 one of all their channels: no tap meets padding."""
    n, channels, frames, height, width = x.shape
    if frames == 1:
        kernel, flat_bias = weight[:, :, 1], bias
    else:
        rows = [weight[:, :, 1:].transpose(1, 2), weight[:, :, :2].transpose(1, 2)]  # c_out 2 C 3 3: of y_0, of y_1
        kernel = torch.cat(rows).flatten(1, 2)
        flat_bias = None if bias is None else bias.repeat(frames)
    flat = x.permute(0, 3, 4, 2, 1).reshape(n, height, width, frames * channels).permute(0, 3, 1, 2)
    y = F.conv2d(flat, kernel, flat_bias, padding=1)
    y = y.permute(0, 2, 3, 1).unflatten(3, (frames, -1)).permute(0, 4, 3, 1, 2)  # N H W T c_out -> N c_out T H W
    return y.contiguous(memory_format=torch.channels_last_3d)


@lru_cache
def filtering() -> tuple[Tensor, Tensor, Tensor]:
    """A (4, 6), G (6, 3) and B (6, 6) of y = A [(G w) * (B x)], in double precision.

    The transpose of multiplying polynomials of degrees 3 and 2: evaluate both at six points, multiply, interpolate.
    Rows of B are scaled to end in 1 and those of G the other way: so B is exact in any precision.
    """

    def powers(count: int) -> Tensor:  # of each point, and the leading coefficient for infinity
        finite = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(count)
        return torch.cat((finite, torch.eye(count, dtype=torch.float64)[-1:]))

    interpolate = torch.linalg.inv(powers(PRODUCTS)).T
    last = torch.stack([row[row.abs() > 1e-9][-1] for row in interpolate])[:, None]
    exact = (2**10 * interpolate / last).round() / 2**10  # the inverse is off by rounding
    return powers(TILE).T.contiguous(), powers(3) * last, exact


@lru_cache
def frame_transform(frames: int, dtype: torch.dtype) -> Tensor:
    """B of all tiles of a clip: (6 x tiles, frames), tiles fastest."""
    tiles = -(-frames // TILE)
    padded = torch.zeros(PRODUCTS, tiles, tiles * TILE + 2, dtype=torch.float64)
    for tile in range(tiles):
        padded[:, tile, tile * TILE : tile * TILE + PRODUCTS] = filtering()[2]
    return padded[:, :, 1 : frames + 1].flatten(0, 1).to(dtype).contiguous()


def transformed_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """G w, rounded once: c_out C 3 3 3 -> 6 c_out C 3 3, channels last."""
    taps = torch.einsum("kt,ocths->kohsc", filtering()[1].to(weight.dtype), weight)
    return taps.to(dtype).permute(0, 1, 4, 2, 3)


def constant(bias: Tensor) -> Tensor:
    """What to add to the products so that A adds `bias` c_out to every frame: 6 c_out."""
    mix = filtering()[0]
    shares = torch.linalg.pinv(mix) @ torch.ones(TILE, dtype=mix.dtype)
    return torch.outer(shares.to(bias.dtype), bias)


def convolve(clips: Tensor, kernels: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution by transformed kernels: N T H W C, 6 c_out C 3 3 -> N T H W c_out. No gradients."""
    n, frames, height, width, _ = clips.shape
    mix = filtering()[0].to(clips.dtype)
    y = clips.new_empty(n, frames, height, width, kernels.shape[1])
    biases = [None] * PRODUCTS if bias is None else constant(bias)
    for chunk in _chunks(clips):
        frames_of = _transformed(clips[chunk])
        products = [
            F.conv2d(v, kernel, b, padding=1).permute(0, 2, 3, 1)
            for v, kernel, b in zip(frames_of, kernels, biases, strict=True)
        ]
        _mix(mix, torch.stack(products), y[chunk])
    return y


class _Convolution(torch.autograd.Function):
    """Keeps its input and transforms it again for the gradient: transformed frames take half as much memory more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        clips = x.permute(0, 2, 3, 4, 1).contiguous()  # N T H W C
        return convolve(clips, transformed_weight(weight, x.dtype)).permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        clips, grads = (t.permute(0, 2, 3, 4, 1).contiguous() for t in (x, grad))
        back, mix = frame_transform(clips.shape[1], x.dtype).T, filtering()[0].to(x.dtype)
        kernels = transformed_weight(weight, x.dtype)
        grad_clips = torch.empty_like(clips)
        grad_kernels = torch.zeros_like(kernels, dtype=weight.dtype)
        for chunk in _chunks(clips):
            grad_frames = []
            for k, (v, g) in enumerate(zip(_transformed(clips[chunk]), _unmixed(mix, grads[chunk]), strict=True)):
                grad_v, grad_kernel, _ = torch.ops.aten.convolution_backward(
                    g, v, kernels[k], None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*ctx.needs_input_grad, False)
                )
                grad_kernels[k] += grad_kernel if ctx.needs_input_grad[1] else 0
                grad_frames.append(grad_v.permute(0, 2, 3, 1) if ctx.needs_input_grad[0] else v.permute(0, 2, 3, 1))
            rows = torch.stack(grad_frames).view(back.shape[1], len(clips[chunk]), -1)
            for i, clip in enumerate(grad_clips[chunk]):
                torch.mm(back, rows[:, i], out=clip.view(len(back), -1))
        taps = torch.einsum("kt,kochw->octhw", filtering()[1].to(weight.dtype), grad_kernels)
        return grad_clips.permute(0, 4, 1, 2, 3), taps


def _chunks(clips: Tensor) -> Iterator[slice]:
    """Which clips N T H W C go through together."""
    size = max(1, CHUNK_BYTES * TILE // (PRODUCTS * clips[0].numel() * clips.element_size()))
    return (slice(start, start + size) for start in range(0, len(clips), size))


def _transformed(clips: Tensor) -> Tensor:
    """B x: N T H W C -> 6 (tiles N) C H W, channels last."""
    n, frames, *place = clips.shape
    matrix = frame_transform(frames, clips.dtype)
    result = clips.new_empty(len(matrix), n, place[0] * place[1] * place[2])
    for i, clip in enumerate(clips):
        torch.mm(matrix, clip.reshape(frames, -1), out=result[:, i])
    return result.view(PRODUCTS, -1, *place).permute(0, 1, 4, 2, 3)


def _mix(mix: Tensor, products: Tensor, y: Tensor) -> None:
    """y = A products: 6 (tiles N) H W c_out -> N T H W c_out."""
    n, frames = y.shape[:2]
    rows = products.view(PRODUCTS, -1, n, products[0, 0].numel())
    for tile, first in enumerate(range(0, frames, TILE)):
        for i in range(n):
            out = y[i, first : first + TILE]
            torch.mm(mix[: len(out)], rows[:, tile, i], out=out.view(len(out), -1))


def _unmixed(mix: Tensor, grads: Tensor) -> Tensor:
    """The transpose of `_mix`: N T H W c_out -> 6 (tiles N) c_out H W, channels last."""
    n, frames, *place = grads.shape
    result = grads.new_empty(PRODUCTS, -(-frames // TILE), n, place[0] * place[1] * place[2])
    for tile, first in enumerate(range(0, frames, TILE)):
        for i in range(n):
            part = grads[i, first : first + TILE]
            torch.mm(mix[: len(part)].T, part.reshape(len(part), -1), out=result[:, tile, i])
    return result.view(PRODUCTS, -1, *place).permute(0, 1, 4, 2, 3)
