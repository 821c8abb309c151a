"""Batch norm over two real processes, against that of the whole batch in one."""

import pytest
import torch
from torch import distributed as dist
from torch import nn

from msfnet import distributed
from msfnet.models.registry import create_model
from msfnet.training.batchnorm import SyncedBatchNorm3d, average_batch_statistics, to_synced_batchnorm


def batch():
    return torch.randn(5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 100


def make_norm(kind):
    norm = kind(3)
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0])
    norm.bias.data = torch.tensor([0.1, 0.0, -1.0])
    norm.running_mean += 99  # as it is after a while; far from it there are fewer digits
    return norm


def one_rank(rank, meeting, out):
    """One of two processes: its share of a batch, forward and backward, and then other running statistics."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    x, norm = batch(), make_norm(SyncedBatchNorm3d)
    assert distributed.world_size() == 2
    own = (x[:2] if rank == 0 else x[2:]).clone().requires_grad_()  # two clips and three
    y = norm(own)
    (y**3).sum().backward()
    for parameter in norm.parameters():
        dist.all_reduce(parameter.grad)
    found = y.detach(), own.grad, [p.grad for p in norm.parameters()], norm.state_dict()
    torch.save(found, f"{out}{rank}")
    plain = make_norm(nn.BatchNorm3d)
    plain.running_var += rank
    average_batch_statistics(plain)
    torch.save(plain.state_dict(), f"{out}-averaged{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(one_rank, (folder / "meeting", folder / "out"), nprocs=2)
    return folder


def test_synchronized_norms_are_those_of_the_whole_batch(two_processes):
    parts = [torch.load(two_processes / f"out{rank}") for rank in (0, 1)]
    x, norm = batch().requires_grad_(), make_norm(nn.BatchNorm3d)
    y = norm(x)
    (y**3).sum().backward()
    assert torch.allclose(torch.cat([part[0] for part in parts]), y, atol=2e-5)
    assert torch.allclose(torch.cat([part[1] for part in parts]), x.grad, atol=1e-4)
    for part in parts:
        for found, parameter in zip(part[2], norm.parameters(), strict=True):
            assert torch.allclose(found, parameter.grad, rtol=1e-4)
        for key, value in norm.state_dict().items():
            assert torch.allclose(part[3][key], value, rtol=1e-5)


def test_running_statistics_are_averaged(two_processes):
    """The variances 1 and 2 have the mean 1.5; parameters stay as they are."""
    for rank in (0, 1):
        found = torch.load(two_processes / f"out-averaged{rank}")
        assert found["running_var"].tolist() == [1.5] * 3
        assert found["running_mean"].tolist() == [99.0] * 3
        assert found["weight"].tolist() == [0.5, 1.0, 2.0]


def test_networks_keep_their_keys_and_weights():
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.125)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 4, 32, 32)
    expected = model.eval()(x)
    model = to_synced_batchnorm(model)
    assert {type(m) for m in model.modules() if isinstance(m, nn.BatchNorm3d)} == {SyncedBatchNorm3d}
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), expected)
