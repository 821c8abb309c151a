"""A network as it is run when it learns no more: the same answers, fewer operations.

Norms that follow a convolution are folded into its weights, kernels are transformed once and not at every call, and
tensors lie channels-last in memory. Knows any network of `nn.Conv3d` and `nn.BatchNorm3d`, and none in particular.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msfnet.layers import winograd
from msfnet.layers.recomputation import traced


def fuse(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy for inference: N C T H W float -> logits N K float, on the device where `model` is.

    In float32 logits differ by rounding alone (1e-5). With `dtype` bfloat16 convolutions are in bf16, and logits agree
    to about 1 %. The copy takes no part in later training of `model`.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for sequence in [m for m in fused.modules() if isinstance(m, nn.Sequential)]:
        _fold_norms(sequence)
    _fix_convolutions(fused, dtype)
    return Fused(fused, dtype)


class Fused(nn.Module):
    """What `fuse` returns."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.network(x).float()


def _fold_norms(sequence: nn.Sequential) -> None:
    """norm(w * x + b) = (s w) * x + (s b + t), with s and t of the norm's running statistics."""
    for i, (module, norm) in enumerate(pairwise(sequence)):
        conv = module[-1] if isinstance(module, nn.Sequential) else module  # a factored one ends in a convolution
        if not (isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)):
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
        before = norm.running_mean.double() if conv.bias is None else norm.running_mean.double() - conv.bias.double()
        bias = norm.bias.double() - before * scale
        dtype = conv.weight.dtype
        conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None, None]).to(dtype), False)
        conv.bias = nn.Parameter(bias.to(dtype), False)
        sequence[i + 1] = nn.Identity()


def _fix_convolutions(model: nn.Module, dtype: torch.dtype) -> None:
    for module in list(model.modules()):
        for name, conv in module.named_children():
            if isinstance(conv, nn.Conv3d):
                setattr(module, name, FixedConv(conv, dtype))


def onednn_computes(dtype: torch.dtype) -> bool:
    """Whether convolutions of this type can be asked of oneDNN on this CPU: bf16 takes AVX-512 or its like."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FixedConv(nn.Module):
    """A convolution whose weights never change: kernels are transformed once."""

    def __init__(self, conv: nn.Conv3d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.data
        self.stride, self.padding = conv.stride, conv.padding
        self.weight = nn.Buffer(weight.to(dtype).contiguous(memory_format=torch.channels_last_3d))
        self.bias = None if conv.bias is None else nn.Buffer(conv.bias.to(dtype))
        self.onednn = onednn_computes(dtype)
        self.quick = conv.kernel_size == (3, 3, 3) and conv.stride == (1, 1, 1) and conv.padding == (1, 1, 1)
        if self.quick:
            self.middle = nn.Buffer(weight[:, :, 1].to(dtype).contiguous(memory_format=torch.channels_last))
            self.transformed = nn.Buffer(winograd.transformed_weight(weight, dtype))

    def forward(self, x: Tensor) -> Tensor:
        if traced() or x.device.type != "cpu" or not self.onednn:
            return F.conv3d(x, self.weight, self.bias, self.stride, self.padding)
        x = x.to(self.weight.dtype)
        if self.quick and x.shape[2] == 1:
            x, kernel, place = x.squeeze(2), self.middle, ((1, 1), (1, 1), (1, 1))
            return torch.ops.aten.mkldnn_convolution(x, kernel, self.bias, *place, 1).unsqueeze(2)
        if self.quick and winograd.pays(x.shape, len(self.weight), self.weight.dtype):
            clips = x.permute(0, 2, 3, 4, 1).contiguous()
            return winograd.convolve(clips, self.transformed, self.bias).permute(0, 4, 1, 2, 3)
        # By its name: F.conv3d leaves what it holds for small, as all that is deep in the network of a lone clip, to
        # plain loops that take several times as long.
        return torch.ops.aten.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, (1, 1, 1), 1
        )  # fmt: skip
