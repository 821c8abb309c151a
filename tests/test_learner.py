"""Optimizer steps: micro-batches, skipped steps, compiled networks and a transform of the user's own."""

import pytest
import torch
from conftest import TINY

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.loading import Batch
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.training.engine import Engine
from msfnet.training.learner import Learner
from msfnet.training.trainer import train


def make_learner(*overrides, transform=None):
    recipe = load_recipe("small", [*TINY, *overrides])
    torch.manual_seed(0)
    model = create_model(recipe.model.name, 2, **recipe.model_kwargs())
    return Learner(model, recipe, ("a", "b"), Engine(recipe.train, "cpu"), (4, 3), transform)


def batch_of(n):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (n, 1, 4, 32, 43, 3), dtype=torch.uint8, generator=generator)
    return Batch(clips, torch.arange(n) % 2, indices=list(range(n)), positions=list(range(n)))


def losses_of(learner, batch, steps):
    n, losses = len(batch.labels), []
    for number in range(steps):
        assert learner.step(batch, [n], 0, number, 0.01)
        losses.append(learner.finish_step() / n)
    return losses


def test_micro_batches_make_the_same_step():
    """C3D has no batch norm; without dropout its step does not depend on the number of micro-batches."""
    found = []
    for micro_batches in (1, 2, 3):
        settings = ("model.name=c3d", "optim.weight_decay=0", "train.batch_size=7")
        learner = make_learner(*settings, f"train.micro_batches={micro_batches}")
        learner.model.dropout.p = 0
        found.append((losses_of(learner, batch_of(7), 3), learner.model.state_dict()))
    (losses, weights), *others = found
    assert losses[2] < losses[0]
    for other_losses, other in others:
        assert other_losses == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(other[key], value, atol=1e-5) for key, value in weights.items())


def test_the_loss_of_a_step_is_counted_once():
    learner = make_learner()
    assert learner.finish_step() == 0
    (loss,) = losses_of(learner, batch_of(4), 1)
    assert learner.finish_step() == 0
    assert learner.train_sums.loss == pytest.approx(4 * loss)
    assert learner.train_sums.n_clips == 4


@pytest.mark.parametrize("clips", [[1], [4, 1], [4, 0]])
def test_a_step_needs_two_clips_in_every_process(clips):
    """A batch norm of one clip has no variance over clips; nothing changes, also where this process has enough."""
    learner = make_learner()
    before = {key: value.clone() for key, value in learner.model.state_dict().items()}
    assert not learner.step(batch_of(clips[0]), clips, 0, 0, 1.0)
    assert learner.finish_step() == 0
    assert all(torch.equal(value, before[key]) for key, value in learner.model.state_dict().items())


def test_a_transform_changes_training_clips_and_no_others():
    seen = []

    def transform(clips):
        seen.append(clips)
        return 255 - clips

    plain, transformed = make_learner(), make_learner(transform=transform)
    batch = batch_of(4)
    assert losses_of(plain, batch, 1) != losses_of(transformed, batch, 1)
    assert torch.equal(seen[0], batch.clips[:, 0])
    with transformed.validating():
        transformed.validate(batch)
    assert len(seen) == 1


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(video_folder, tmp_path):
    """At a low learning rate, at which other rounding does not grow."""
    losses = []
    for compiled in ("false", "true"):
        settings = ("model.name=r3d_18", "train.epochs=1", "optim.lr=0.001", "data.val_fraction=0", "augment.mixup=0")
        recipe = load_recipe("small", [*TINY, *settings, f"train.compile={compiled}"])
        losses.append(train(read_dataset(video_folder), recipe, tmp_path / compiled).history[0]["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
