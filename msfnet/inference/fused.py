"""A network as it runs in inference: the same logits from fewer operations.

Batch norms are folded into the convolutions before them, convolutions transform their weights once instead of at every
call, and tensors are channels-last in memory. Only 3D convolutions and batch norms change.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from msfnet.layers import winograd
from msfnet.layers.norm_folding import fold_norms, is_plain_conv
from msfnet.layers.recomputation import is_tracing


def fuse(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of a network for inference.

    Args:
        model: Any network N C T H W -> logits N K. It is not changed. See `fold_norms` for what is assumed of it.
        dtype: float32, in which logits differ by rounding alone (1e-5), or bfloat16 for the convolutions, in which they
            agree to about 1 %.

    Returns:
        A network float N C T H W -> float logits N K, in evaluation mode, on the same device. It cannot be trained.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    fold_norms(fused)
    for module in list(fused.modules()):
        for name, child in module.named_children():
            if _can_be_frozen(child):
                assert isinstance(child, nn.Conv3d)
                setattr(module, name, FrozenConv3d(child, dtype))
    return Fused(fused, dtype)


class Fused(nn.Module):
    """A network as `fuse` returns it, whose convolutions compute in `dtype`: float N C T H W -> float N K."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.network(x).float()


def onednn_supports(dtype: torch.dtype) -> bool:
    """Return whether oneDNN computes convolutions in this type on this CPU: bfloat16 needs AVX-512 or the like."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _can_be_frozen(module: nn.Module) -> bool:
    """Return whether `FrozenConv3d` can replace a module: a plain float32 convolution with zero padding."""
    if not (isinstance(module, nn.Conv3d) and is_plain_conv(module)):
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str) and module.weight.dtype == torch.float


class FrozenConv3d(nn.Conv3d):
    """A convolution whose weights never change, so that they are transformed once. It has the attributes of `conv`.

    Args:
        conv: The convolution to copy.
        dtype: Type of the computation and the output on CPUs.
    """

    def __init__(self, conv: nn.Conv3d, dtype: torch.dtype) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 1, bias=False, device="meta")
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups
        weight = conv.weight.data
        self.weight = nn.Parameter(weight.to(dtype).contiguous(memory_format=torch.channels_last_3d), False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.data.to(dtype), False)
        self.onednn = onednn_supports(dtype)
        shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        self.is_3x3x3 = shape == ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        if self.is_3x3x3:
            self.middle = nn.Buffer(weight[:, :, 1].to(dtype).contiguous(memory_format=torch.channels_last))
            self.transformed = nn.Buffer(winograd.transform_weight(weight, dtype))

    def forward(self, x: Tensor) -> Tensor:
        if is_tracing() or x.device.type != "cpu" or not self.onednn:
            return super().forward(x)
        x = x.to(self.weight.dtype)
        if self.is_3x3x3 and x.shape[2] == 1:  # a single frame meets the middle taps alone
            x, kernel, place = x.squeeze(2), self.middle, ((1, 1), (1, 1), (1, 1))
            return torch.ops.aten.mkldnn_convolution(x, kernel, self.bias, *place, 1).unsqueeze(2)
        if self.is_3x3x3 and winograd.is_faster(x.shape, len(self.weight), self.weight.dtype):
            clips = x.permute(0, 2, 3, 4, 1).contiguous()  # N C T H W -> N T H W C
            return winograd.convolve(clips, self.transformed, self.bias).permute(0, 4, 1, 2, 3)
        # F.conv3d leaves convolutions that it considers small, as those deep in the network are for a single clip, to
        # plain loops that take several times as long. This calls oneDNN for every size.
        return torch.ops.aten.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
