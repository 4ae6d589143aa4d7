"""What attacks climb: functions of the logits that grow as the true class loses.

Each takes logits z (n, classes) and a goal, and gives one value an image, (n,). The goal of an untargeted loss is the
true labels y (n,); that of a targeted one is pairs (n, 2) of true label and target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

_TINY = 1e-12


def cross_entropy_margin(z: Tensor, y: Tensor) -> Tensor:
    """logsumexp of the other logits, minus the true one: cross-entropy is its softplus.

    The same order and the same direction of ascent as cross-entropy, without its underflow (docs/adr/0006).
    """
    return torch.logsumexp(_others(z, y), dim=1) - _at(z, y)


def margin(z: Tensor, y: Tensor) -> Tensor:
    """The largest other logit minus the true one (Carlini and Wagner 2017, f6): positive when misclassified."""
    return _others(z, y).amax(1) - _at(z, y)


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, Croce and Hein 2020, https://arxiv.org/abs/2003.01690, eq. 6.

    The margin over the gap between the first and third logit, so scaling the logits changes nothing. It needs three
    classes; with two it is the margin.
    """
    if z.shape[1] < 3:
        return margin(z, y)
    top = z.topk(3, dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_margin(z: Tensor, pairs: Tensor) -> Tensor:
    """The target's logit minus the true one."""
    return _at(z, pairs[:, 1]) - _at(z, pairs[:, 0])


def targeted_dlr(z: Tensor, pairs: Tensor) -> Tensor:
    """Targeted difference of logits ratio, arXiv 2003.01690, eq. 7; with fewer than four classes the margin."""
    if z.shape[1] < 4:
        return targeted_margin(z, pairs)
    top = z.topk(4, dim=1).values
    return targeted_margin(z, pairs) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


def true_labels(goal: Tensor) -> Tensor:
    """The true labels (n,) in a goal of either kind."""
    return goal if goal.dim() == 1 else goal[:, 0]


def likeliest_others(z: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` classes with the largest logits beside the true one, best first, (n, count)."""
    return _others(z, y).topk(count, dim=1).indices


def _at(z: Tensor, classes: Tensor) -> Tensor:
    return z.gather(1, classes[:, None])[:, 0]


def _others(z: Tensor, y: Tensor) -> Tensor:
    return z.scatter(1, y[:, None], -torch.inf)
