"""Losses, for targets that are shares of the classes, as mixup, CutMix and label smoothing make them.

Logits are N K and targets N K, whose rows sum to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from msfnet.recipe import Train

Loss = Callable[[Tensor, Tensor], Tensor]  # logits and targets -> the mean over the batch


def make_loss(train: Train, class_counts: Sequence[int]) -> Loss:
    """Create the loss of a recipe.

    Args:
        train: The table of the recipe.
        class_counts: How many training videos each class has, at least one.
    """
    smoothing = train.label_smoothing
    losses: dict[str, Callable[[], Loss]] = {
        "cross_entropy": lambda: partial(F.cross_entropy, label_smoothing=smoothing),
        "class_weighted": lambda: partial(
            weighted_cross_entropy, weights=class_weights(class_counts), label_smoothing=smoothing
        ),
        "focal": lambda: partial(focal_loss, gamma=train.focal_gamma, label_smoothing=smoothing),
    }
    return losses[train.loss]()


def class_weights(class_counts: Sequence[int]) -> Tensor:
    """Return the weights w_k = N / (K n_k), which balance the classes; their mean over all videos is 1.

    This is inverse frequency (King and Zeng, 2001, "Logistic regression in rare events data"), the limit of the
    effective number of samples (Cui et al., 2019) as beta approaches one. Classes of equal size weigh exactly 1.

    Args:
        class_counts: n_k, how many of the N training videos each of the K classes has.
    """
    n, k = sum(class_counts), len(class_counts)
    return torch.tensor([n / (k * count) for count in class_counts])


def weighted_cross_entropy(logits: Tensor, targets: Tensor, *, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over clips of -sum_k w_k t_k log p_k, for class weights w."""
    return F.cross_entropy(logits, targets, weights.to(logits), label_smoothing=label_smoothing)


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over clips of -sum_k t_k (1 - p_k)^gamma log p_k, in which confident predictions count little.

    Lin et al., 2017, "Focal loss for dense object detection", for targets that may be shares. With a `gamma` of 0 it is
    cross-entropy.
    """
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1] if label_smoothing else targets
    missed = -torch.expm1(logits.float().log_softmax(1))  # 1 - p, exact near zero
    # With a gamma below one, the power has an infinite slope at zero.
    return F.cross_entropy(logits, targets * missed.clamp_min(torch.finfo(missed.dtype).eps) ** gamma)
