"""Activation checkpointing changes what is saved for backward, and nothing else."""

from contextlib import nullcontext

import pytest
import torch

from msfnet.models import c3d, resnet3d
from msfnet.models.registry import create_model
from msfnet.training.checkpointing import checkpoint_blocks


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "r2plus1d_18", "c3d", "msf_c3d_fsam"])
def test_recomputed_blocks_change_nothing_but_memory(name, monkeypatch):
    """Outputs, gradients, running statistics and dropout are the same; less is saved for backward."""
    for module in (resnet3d, c3d):  # its hooks would hide from ours what is saved
        monkeypatch.setattr(module, "recompute_activations", lambda enabled: nullcontext())

    def step(model):
        saved = 0
        torch.manual_seed(3)

        def pack(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model.train()(x).square().sum()
        loss.backward()
        return loss, saved

    torch.manual_seed(0)
    plain = create_model(name, 3, width_mult=0.125, num_frames=8, img_size=32)
    checkpointed = create_model(name, 3, width_mult=0.125, num_frames=8, img_size=32)
    checkpointed.load_state_dict(plain.state_dict())
    checkpointed = checkpoint_blocks(checkpointed)
    (expected, saved), (found, saved_with_checkpoints) = step(plain), step(checkpointed)
    assert torch.equal(found, expected)
    assert saved_with_checkpoints < 0.6 * saved
    for (key, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6, rtol=1e-4), key
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in checkpointed.state_dict().items())
