"""Batch norms of several processes, and of blocks that are computed twice. Knows torch and `processes`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from msfnet import distributed


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient is summed likewise."""

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
    """Batch norm by the clips of all processes together, on CPUs as on GPUs (torch's own is for GPUs alone).

    With n, s, q the count, sum and sum of squares over all processes: mean = s / n, variance = q / n - mean^2, in
    float32 or better whatever the precision of x. N C T H W -> N C T H W, N may differ between processes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or distributed.count() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            own = x.to(torch.promote_types(x.dtype, torch.float32))
            over = (0, 2, 3, 4)
            shift = self.running_mean.detach().clone() if self.running_mean is not None else x.new_zeros(x.shape[1])
            centered = own - shift.view(1, -1, 1, 1, 1)  # near the mean, q / n - mean^2 loses no digits
            count = own.new_full((1,), own.numel() / own.shape[1])
            sums: Tensor = _Sum.apply(  # type: ignore[no-untyped-call]
                torch.cat([centered.sum(over), centered.square().sum(over), count])
            )
            n, channels = sums[-1], own.shape[1]
            mean = sums[:channels] / n
            variance = sums[channels:-1] / n - mean.square()
            self._remember(mean.detach() + shift, variance.detach(), float(n.detach()))
            scale = torch.rsqrt(variance + self.eps) * self.weight
            out = (centered - mean.view(1, -1, 1, 1, 1)) * scale.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)
        return out.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, n: float) -> None:
        """As torch's: the running variance is the unbiased one."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / max(1.0, n - 1)), self.momentum)


def to_synced_batchnorm(model: nn.Module) -> nn.Module:
    """Have every BatchNorm3d of the network go by all processes. Parameters and keys stay as they are."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm3d:
                norm = SyncedBatchNorm3d(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm.train(child.training))
    return model


def average_batch_statistics(model: nn.Module) -> None:
    """Give every process the mean of all processes' running statistics: so they all score, and save, one network."""
    if distributed.count() == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    flat = distributed.add(torch.cat([b.flatten() for b in buffers])) / distributed.count()
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


@contextmanager
def without_running_statistics(module: nn.Module) -> Iterator[None]:
    """Norms within go by their batch, as in training, and leave their running statistics as they are."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm3d)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone() if norm.num_batches_tracked is not None else None
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
