"""Batch norm in several processes: batch statistics over all of them, and running statistics that they share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from msfnet import distributed


class _AllReduceSum(torch.autograd.Function):
    """Sums over all processes, forward and, for the gradient, backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm3d(nn.BatchNorm3d):
    """Batch norm with batch statistics over all processes, on CPUs too, unlike torch's SyncBatchNorm.

    With the count n, the sum s and the sum of squares q over all processes, mean = s / n and variance = q / n - mean^2,
    in float32 or better for any precision of the input. Processes may have different numbers of clips.

    N C T H W -> N C T H W.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            own = x.to(torch.promote_types(x.dtype, torch.float32))
            axes = (0, 2, 3, 4)
            shift = self.running_mean.detach().clone() if self.running_mean is not None else x.new_zeros(x.shape[1])
            centered = own - shift.view(1, -1, 1, 1, 1)  # near the mean, q / n - mean^2 does not cancel
            count = own.new_full((1,), own.numel() / own.shape[1])
            sums: Tensor = _AllReduceSum.apply(  # type: ignore[no-untyped-call]
                torch.cat([centered.sum(axes), centered.square().sum(axes), count])
            )
            n, channels = sums[-1], own.shape[1]
            mean = sums[:channels] / n
            variance = sums[channels:-1] / n - mean.square()
            self._update(mean.detach() + shift, variance.detach(), n.detach())
            scale = torch.rsqrt(variance + self.eps) * self.weight
            out = (centered - mean.view(1, -1, 1, 1, 1)) * scale.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)
        return out.to(x.dtype)

    def _update(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        """Update the running statistics as torch does, with the unbiased variance; `n` stays on the device."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1).clamp_min(1.0)), self.momentum)


def to_synced_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm3d of a network, in place, by a synchronized one with the same parameters and keys."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm3d:
                norm = SyncedBatchNorm3d(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm.train(child.training))
    return model


def average_batch_statistics(model: nn.Module) -> None:
    """Set the running statistics of every process to their mean, so that all evaluate and save the same network."""
    if distributed.world_size() == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    mean = distributed.sum_tensor(torch.cat([b.flatten() for b in buffers])) / distributed.world_size()
    for buffer, part in zip(buffers, mean.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
