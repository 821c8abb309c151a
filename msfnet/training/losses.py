"""What training minimizes, and what classes of unequal size weigh in it. Knows numbers only, no network and no video.

Targets are N K shares of the classes, as mixup, CutMix and label smoothing leave them; logits are N K.
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
    """The recipe's loss; `class_counts` are the training videos of each class, one or more."""
    smoothing = train.label_smoothing
    losses: dict[str, Callable[[], Loss]] = {
        "cross_entropy": lambda: partial(F.cross_entropy, label_smoothing=smoothing),
        "class_weighted": lambda: partial(weighted, weights=class_weights(class_counts), label_smoothing=smoothing),
        "focal": lambda: partial(focal, gamma=train.focal_gamma, label_smoothing=smoothing),
    }
    return losses[train.loss]()


def class_weights(class_counts: Sequence[int]) -> Tensor:
    """What an error in each class weighs so that all classes weigh the same: w_k = N / (K n_k), 1 over all videos.

    n_k are the videos of class k, N those of all K classes: inverse frequency (King and Zeng, 2001, "Logistic
    regression in rare events data"), to which the effective number of samples (Cui et al., 2019) comes as beta goes
    to one. Classes of equal size weigh exactly one each.
    """
    n, k = sum(class_counts), len(class_counts)
    return torch.tensor([n / (k * count) for count in class_counts])


def weighted(logits: Tensor, targets: Tensor, *, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over clips of -sum_k w_k t_k log p_k, a clip's share of each class weighing as that class does."""
    return F.cross_entropy(logits, targets, weights.to(logits), label_smoothing=label_smoothing)


def focal(logits: Tensor, targets: Tensor, *, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """Mean over clips of -sum_k t_k (1 - p_k)^gamma log p_k: what is recognized already counts for little.

    Lin et al., 2017, "Focal loss for dense object detection", for targets that may be shares. 0 is cross-entropy.
    """
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1] if label_smoothing else targets
    missed = -torch.expm1(logits.float().log_softmax(1))  # 1 - p, exact near zero
    # Below one, the power has no finite slope at zero.
    return F.cross_entropy(logits, targets * missed.clamp_min(torch.finfo(missed.dtype).eps) ** gamma)
