"""A 3x3x3 convolution with half the multiplications on CPUs: Winograd's F(4, 3) along the time axis.

A 3x3x3 convolution is a sum of three 3x3 convolutions per output frame: of the frame before, the frame itself and the
frame after it. Winograd's minimal filtering computes four output frames from six such convolutions instead of twelve
(Winograd, 1980; Lavin and Gray, 2016, "Fast algorithms for convolutional neural networks", whose notation this is):

    y = A^T [(G g) * (B^T d)]      g: 3 taps; d: 6 frames; *: six 3x3 convolutions; y: 4 frames

The matrices scale and add frames only (`transforms`). The first and the last of the six frames belong to the
neighboring tiles, or are zero outside the clip, so B^T of all tiles is one small matrix from T frames to 6 T / 4.
Height and width are left to PyTorch's convolutions, which run near the machine's peak there.

The result is exact up to rounding, two to three times that of the direct convolution: 1e-6 of the output's norm in
float32, 6e-3 in bfloat16. `use_winograd(False)` turns it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msfnet.layers.recomputation import is_tracing

TILE = 4  # m of F(m, r): output frames of a tile
PRODUCTS = 6  # m + r - 1: convolutions that compute them
CHUNK_BYTES = 2**24  # clips are computed together while their transformed frames fit into this much of the cache

# Multiply-adds of a clip from which on the transforms cost less than they save, by element type.
MIN_MACS = {torch.float32: 2e7, torch.float64: 2e7, torch.bfloat16: 1e9}


@dataclass(frozen=True)
class Transforms:
    """The matrices of y = A^T [(G g) * (B^T d)] for F(4, 3), in double precision."""

    output: Tensor  # A^T: 4 6
    weight: Tensor  # G: 6 3
    input: Tensor  # B^T: 6 6


@lru_cache
def transforms(near: float, far: float) -> Transforms:
    """Return the transforms of F(4, 3) for the interpolation points 0, ±near, ±far and infinity.

    With a = near and b = far, by the Toom-Cook construction (Lavin and Gray, section 4; their F(4, 3) has a = 1, b =
    2):

              [ 1  1   1   1   1   0 ]           [  1/(a²b²)     0          0      ]
        A^T = [ 0  a  -a   b  -b   0 ]           [  1/p         a/p        a²/p    ]   p = 2a²(a² - b²)
              [ 0  a²  a²  b²  b²  0 ]       G = [  1/p        -a/p        a²/p    ]
              [ 0  a³ -a³  b³ -b³  1 ]           [  1/q         b/q        b²/q    ]   q = 2b²(b² - a²)
                                                 [  1/q        -b/q        b²/q    ]
                                                 [  0            0          1      ]

              [ a²b²    0      -(a²+b²)    0       1   0 ]
              [ 0     -ab²     -b²         a       1   0 ]
        B^T = [ 0      ab²     -b²        -a       1   0 ]
              [ 0     -a²b     -a²         b       1   0 ]
              [ 0      a²b     -a²        -b       1   0 ]
              [ 0      a²b²     0      -(a²+b²)    0   1 ]

    Any two distinct positive numbers give the exact convolution; they differ in how much they round.

    Args:
        near: Point a.
        far: Point b.
    """
    a, b = near, far
    p, q = 2 * a**2 * (a**2 - b**2), 2 * b**2 * (b**2 - a**2)
    product, total = a**2 * b**2, a**2 + b**2
    output = [
        [1, 1, 1, 1, 1, 0],
        [0, a, -a, b, -b, 0],
        [0, a**2, a**2, b**2, b**2, 0],
        [0, a**3, -(a**3), b**3, -(b**3), 1],
    ]
    weight = [
        [1 / product, 0, 0],
        [1 / p, a / p, a**2 / p],
        [1 / p, -a / p, a**2 / p],
        [1 / q, b / q, b**2 / q],
        [1 / q, -b / q, b**2 / q],
        [0, 0, 1],
    ]
    inputs = [
        [product, 0, -total, 0, 1, 0],
        [0, -a * b**2, -(b**2), a, 1, 0],
        [0, a * b**2, -(b**2), -a, 1, 0],
        [0, -(a**2) * b, -(a**2), b, 1, 0],
        [0, a**2 * b, -(a**2), -b, 1, 0],
        [0, product, 0, -total, 0, 1],
    ]
    return Transforms(*(torch.tensor(rows, dtype=torch.float64) for rows in (output, weight, inputs)))


# Of the points whose A^T and B^T are exact in bfloat16, these round least, so that only the weights are rounded.
CPU_TRANSFORMS = transforms(0.75, 1.5)

_enabled = True


@contextmanager
def use_winograd(enabled: bool) -> Iterator[None]:
    """Context in which `Conv3x3x3` may use Winograd's algorithm or, with `use_winograd(False)`, never uses it.

    It holds for all threads of the process. Networks exported within it are not affected.

    Args:
        enabled: Whether the algorithm is used where it is faster, which is the default.
    """
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


class Conv3x3x3(nn.Conv3d):
    """nn.Conv3d with a 3x3x3 kernel, stride 1 and padding 1, faster on CPUs: N C T H W -> N c_out T H W.

    Parameters, results and gradients are those of nn.Conv3d, up to rounding. Winograd's algorithm is used where it is
    faster: on CPUs, for more than two frames and enough multiply-adds.

    Args:
        c_in: Input channels C.
        c_out: Output channels.
        bias: Whether there is a bias.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = False) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or is_tracing():
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        frames = x.shape[2]
        # oneDNN leaves gradients of bf16 kernels that are longer than the clip partly unwritten (torch 2.13).
        if frames == 1 or (frames == 2 and dtype == torch.bfloat16 and torch.is_grad_enabled()):
            return flat_convolution(x, self.weight, self.bias)
        if not is_faster(x.shape, self.out_channels, dtype):
            return super().forward(x)
        y: Tensor = WinogradConvolution.apply(x.to(dtype), self.weight)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias[:, None, None, None]


def is_faster(shape: torch.Size, c_out: int, dtype: torch.dtype) -> bool:
    """Return whether Winograd's algorithm is enabled and faster for inputs of this shape N C T H W, for any N."""
    _, channels, frames, height, width = shape
    macs = 27 * channels * c_out * frames * height * width
    return _enabled and frames > 2 and macs > MIN_MACS.get(dtype, float("inf"))


def flat_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3x3x3 convolution of one or two frames as a 3x3 convolution of the channels of all frames.

    No multiplication is spent on the zero frames of the padding.
    """
    n, channels, frames, height, width = x.shape
    if frames == 1:
        kernel, flat_bias = weight[:, :, 1], bias
    else:
        rows = [weight[:, :, 1:].transpose(1, 2), weight[:, :, :2].transpose(1, 2)]  # c_out 2 C 3 3: of y_0, of y_1
        kernel = torch.cat(rows).flatten(1, 2)
        flat_bias = None if bias is None else bias.repeat(frames)
    flat = x.permute(0, 3, 4, 2, 1).reshape(n, height, width, frames * channels).permute(0, 3, 1, 2)  # N TC H W
    y = F.conv2d(flat, kernel, flat_bias, padding=1)
    y = y.permute(0, 2, 3, 1).unflatten(3, (frames, -1)).permute(0, 4, 3, 1, 2)  # N H W T c_out -> N c_out T H W
    return y.contiguous(memory_format=torch.channels_last_3d)


@lru_cache
def input_transform(frames: int, dtype: torch.dtype) -> Tensor:
    """Return B^T of all tiles of a clip: (6 x tiles, frames), where the tile index varies fastest."""
    tiles = -(-frames // TILE)
    padded = torch.zeros(PRODUCTS, tiles, tiles * TILE + 2, dtype=torch.float64)
    for tile in range(tiles):
        padded[:, tile, tile * TILE : tile * TILE + PRODUCTS] = CPU_TRANSFORMS.input
    return padded[:, :, 1 : frames + 1].flatten(0, 1).to(dtype).contiguous()


def transform_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute G g, rounded once: c_out C 3 3 3 -> 6 c_out C 3 3, channels last."""
    taps = torch.einsum("kt,ocths->kohsc", CPU_TRANSFORMS.weight.to(weight.dtype), weight)
    return taps.to(dtype).permute(0, 1, 4, 2, 3)


def transform_bias(bias: Tensor) -> Tensor:
    """Return what to add to the six products so that A^T adds `bias` to every frame: c_out -> 6 c_out."""
    shares = torch.linalg.pinv(CPU_TRANSFORMS.output) @ torch.ones(TILE, dtype=torch.float64)
    return torch.outer(shares.to(bias.dtype), bias)


def convolve(clips: Tensor, kernels: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of clips by transformed kernels, without gradients.

    Args:
        clips: Frames N T H W C.
        kernels: `transform_weight` of the weights: 6 c_out C 3 3.
        bias: Added to every frame: c_out.

    Returns:
        Frames N T H W c_out.
    """
    n, frames, height, width, _ = clips.shape
    matrix = CPU_TRANSFORMS.output.to(clips.dtype)
    y = clips.new_empty(n, frames, height, width, kernels.shape[1])
    biases = [None] * PRODUCTS if bias is None else transform_bias(bias)
    for chunk in _chunks(clips):
        transformed = _transform_input(clips[chunk])
        products = [
            F.conv2d(v, kernel, b, padding=1).permute(0, 2, 3, 1)
            for v, kernel, b in zip(transformed, kernels, biases, strict=True)
        ]
        _transform_output(matrix, torch.stack(products), y[chunk])
    return y


class WinogradConvolution(torch.autograd.Function):
    """The convolution with gradients. Transformed frames are recomputed in backward: they are half as large again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        clips = x.permute(0, 2, 3, 4, 1).contiguous()  # N T H W C
        return convolve(clips, transform_weight(weight, x.dtype)).permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The transposes in reverse order: grad d = B [(A grad y) convolved by flipped G g], and likewise grad g."""
        x, weight = ctx.saved_tensors
        clips, grads = (t.permute(0, 2, 3, 4, 1).contiguous() for t in (x, grad))  # N T H W C
        back, matrix = input_transform(clips.shape[1], x.dtype).T, CPU_TRANSFORMS.output.to(x.dtype)
        kernels = transform_weight(weight, x.dtype)
        grad_clips = torch.empty_like(clips)
        grad_kernels = torch.zeros_like(kernels, dtype=weight.dtype)
        for chunk in _chunks(clips):
            grad_frames = []
            pairs = zip(_transform_input(clips[chunk]), _transpose_output(matrix, grads[chunk]), strict=True)
            for k, (v, g) in enumerate(pairs):
                grad_v, grad_kernel, _ = torch.ops.aten.convolution_backward(
                    g, v, kernels[k], None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*ctx.needs_input_grad, False)
                )
                grad_kernels[k] += grad_kernel if ctx.needs_input_grad[1] else 0
                grad_frames.append(grad_v.permute(0, 2, 3, 1) if ctx.needs_input_grad[0] else v.permute(0, 2, 3, 1))
            rows = torch.stack(grad_frames).view(back.shape[1], len(clips[chunk]), -1)  # 6 tiles, N, H W C
            for i, clip in enumerate(grad_clips[chunk]):
                torch.mm(back, rows[:, i], out=clip.view(len(back), -1))
        taps = torch.einsum("kt,kochw->octhw", CPU_TRANSFORMS.weight.to(weight.dtype), grad_kernels)
        return grad_clips.permute(0, 4, 1, 2, 3), taps


def _chunks(clips: Tensor) -> Iterator[slice]:
    """Return which clips N T H W C are computed together."""
    size = max(1, CHUNK_BYTES * TILE // (PRODUCTS * clips[0].numel() * clips.element_size()))
    return (slice(start, start + size) for start in range(0, len(clips), size))


def _transform_input(clips: Tensor) -> Tensor:
    """Compute B^T d: N T H W C -> 6 (tiles N) C H W, channels last."""
    n, frames, *positions = clips.shape
    matrix = input_transform(frames, clips.dtype)
    result = clips.new_empty(len(matrix), n, positions[0] * positions[1] * positions[2])
    for i, clip in enumerate(clips):
        torch.mm(matrix, clip.reshape(frames, -1), out=result[:, i])
    return result.view(PRODUCTS, -1, *positions).permute(0, 1, 4, 2, 3)


def _transform_output(matrix: Tensor, products: Tensor, y: Tensor) -> None:
    """Write A^T of the products into `y`: 6 (tiles N) H W c_out -> N T H W c_out."""
    n, frames = y.shape[:2]
    rows = products.view(PRODUCTS, -1, n, products[0, 0].numel())  # 6 tiles N (H W c_out)
    for tile, first in enumerate(range(0, frames, TILE)):
        for i in range(n):
            out = y[i, first : first + TILE]
            torch.mm(matrix[: len(out)], rows[:, tile, i], out=out.view(len(out), -1))


def _transpose_output(matrix: Tensor, grads: Tensor) -> Tensor:
    """Return a of the gradients: N T H W c_out -> 6 (tiles N) c_out H W, channels last."""
    n, frames, *positions = grads.shape
    result = grads.new_empty(PRODUCTS, -(-frames // TILE), n, positions[0] * positions[1] * positions[2])
    for tile, first in enumerate(range(0, frames, TILE)):
        for i in range(n):
            part = grads[i, first : first + TILE]
            torch.mm(matrix[: len(part)].T, part.reshape(len(part), -1), out=result[:, tile, i])
    return result.view(PRODUCTS, -1, *positions).permute(0, 1, 4, 2, 3)
