"""Activation recomputation: values and gradients stay the same, and less is saved for backward."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from msfnet.layers import recomputation
from msfnet.layers.recomputation import ConvNormReLU, concat_channels, recompute_activations
from msfnet.models import resnet3d
from msfnet.models.registry import create_model


def gradients(model, x):
    model.zero_grad()
    F.cross_entropy(model(x), torch.arange(len(x))).backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.fixture
def without_recomputation(monkeypatch):
    """A context in which networks save all activations for backward."""

    def turn_off():
        monkeypatch.setattr(resnet3d, "recompute_activations", lambda enabled: nullcontext())

    return turn_off


@pytest.mark.parametrize("name", ["msf_r3d_18_fsam", "msf_r3d_18_a", "msf_r3d_18_c", "msf_r3d_18_d", "msf_r3d_18_cbam"])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_gradients_are_identical_bit_for_bit(name, layout, without_recomputation):
    model = create_model(name, 3, width_mult=0.25, img_size=32).to(memory_format=layout).train()
    x = torch.randn(3, 3, 8, 32, 32)
    recomputed = gradients(model, x)
    without_recomputation()
    assert all(torch.equal(a, b) for a, b in zip(recomputed, gradients(model, x), strict=True))


def test_running_statistics_count_a_batch_once():
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
    gradients(model, torch.randn(3, 3, 8, 32, 32))
    assert {int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")} == {1}


def conv_norm_relu(c_in=4):
    return ConvNormReLU(nn.Conv3d(c_in, 4, 1, bias=False), 4)


def test_slices_and_concatenations_are_recomputed():
    first, second = conv_norm_relu(), conv_norm_relu(8)
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)
    grads = []
    for enabled in (True, False):
        with recompute_activations(enabled):
            y = first(x)
            z = second(concat_channels([y[:, 2:], y[:, :2], y]))
        grads.append(torch.autograd.grad(z.square().sum(), (x, first[0].weight, second[0].weight)))
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_reused_memory_is_not_mistaken():
    """A tensor at the address of one that was freed must not be mistaken as the registered one."""
    layers = nn.ModuleList([conv_norm_relu() for _ in range(6)])
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)

    def run(enabled):
        y = x
        with recompute_activations(enabled):
            for layer in layers:
                y = layer(y).tanh() + y  # tanh saves its output, at whatever address is free
        return torch.autograd.grad(y.square().sum(), [x, *layers.parameters()])

    for a, b in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(a, b)


def test_networks_on_the_meta_device_run_too():
    with torch.device("meta"):
        model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
        logits = model(torch.zeros(2, 3, 8, 32, 32))
        logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(parameter.grad.is_meta for parameter in model.parameters())


def test_other_norms_are_saved():
    layer = conv_norm_relu()
    layer[1] = nn.InstanceNorm3d(4)
    x = torch.randn(2, 4, 4, 8, 8, requires_grad=True)
    with recompute_activations(True):
        y = layer(x)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def saved_bytes(model, x, monkeypatch):
    """What a forward pass saves for backward, each memory counted once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def count(saved):
        if isinstance(saved, torch.Tensor) and saved.untyped_storage().data_ptr() not in own:
            seen[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
        return saved

    pack = recomputation._Registry.pack
    with monkeypatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        patch.setattr(recomputation._Registry, "pack", lambda registry, x: count(pack(registry, x)))
        model(x)
    return sum(storage.nbytes() for storage in seen.values())


def test_a_network_saves_about_half_for_backward(monkeypatch, without_recomputation):
    model = create_model("msf_r3d_18_fsam", 3, width_mult=0.25, img_size=32).train()
    x = torch.randn(2, 3, 8, 32, 32)
    recomputed = saved_bytes(model, x, monkeypatch)
    without_recomputation()
    assert recomputed < 0.6 * saved_bytes(model, x, monkeypatch)
