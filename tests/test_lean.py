"""What is made again in the backward pass: values and gradients stay, memory goes."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from msfnet import create_model
from msfnet.layers import recomputation as layers_lean
from msfnet.layers.recomputation import ConvNormReLU, join, lean
from msfnet.models import resnet3d


def gradients(model, x):
    model.zero_grad()
    F.cross_entropy(model(x), torch.arange(len(x))).backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", ["msf_r3d_18_fsam", "msf_r3d_18_a", "msf_r3d_18_c", "msf_r3d_18_d", "msf_r3d_18_cbam"])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_gradients_are_the_same_to_the_last_bit(name, layout, monkeypatch):
    model = create_model(name, 3, width_mult=0.25, img_size=32).to(memory_format=layout).train()
    x = torch.randn(3, 3, 8, 32, 32)
    with_notes = gradients(model, x)
    monkeypatch.setattr(resnet3d, "lean", lambda wanted: nullcontext())
    assert all(torch.equal(a, b) for a, b in zip(with_notes, gradients(model, x), strict=True))


def test_running_statistics_count_a_batch_once(monkeypatch):
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
    x = torch.randn(3, 3, 8, 32, 32)
    gradients(model, x)
    assert {int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")} == {1}


def made(c_in=4):
    return ConvNormReLU(nn.Conv3d(c_in, 4, 1, bias=False), 4)


def test_slices_and_concatenations_of_what_is_not_kept_are_made_again():
    first, second = made(), made(8)
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)
    grads = []
    for wanted in (True, False):
        with lean(wanted):
            y = first(x)
            z = second(join([y[:, 2:], y[:, :2], y]))
        grads.append(torch.autograd.grad(z.square().sum(), (x, first[0].weight, second[0].weight)))
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_tensors_that_are_no_longer_used_leave_their_memory():
    """What is freed and taken by another tensor must not be mistaken for the one that was noted."""
    layers = nn.ModuleList([made() for _ in range(6)])
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)

    def run(wanted):
        y = x
        with lean(wanted):
            for layer in layers:
                y = layer(y).tanh() + y  # tanh keeps a tensor of its own, at whatever address is free
        return torch.autograd.grad(y.square().sum(), [x, *layers.parameters()])

    for a, b in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(a, b)


def test_networks_without_memory_are_no_exception():
    with torch.device("meta"):
        model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
        model(torch.zeros(2, 3, 8, 32, 32)).sum().backward()


def test_other_norms_go_the_plain_way():
    layer = made()
    layer[1] = nn.InstanceNorm3d(4)
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)
    with lean(True):
        y = layer(x)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def kept_bytes(model, x, monkeypatch):
    """What autograd keeps of a forward pass, each memory counted once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def count(kept):
        if isinstance(kept, torch.Tensor) and kept.untyped_storage().data_ptr() not in own:
            seen[kept.untyped_storage().data_ptr()] = kept.untyped_storage()
        return kept

    pack = layers_lean._Notes.pack
    with monkeypatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        patch.setattr(layers_lean._Notes, "pack", lambda notes, x: count(pack(notes, x)))
        model(x)
    return sum(storage.nbytes() for storage in seen.values())


def test_a_network_keeps_half_of_what_it_would(monkeypatch):
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
    x = torch.randn(2, 3, 8, 32, 32)
    with_notes = kept_bytes(model, x, monkeypatch)
    monkeypatch.setattr(resnet3d, "lean", lambda wanted: nullcontext())
    assert with_notes < 0.6 * kept_bytes(model, x, monkeypatch)
