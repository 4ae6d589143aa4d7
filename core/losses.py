"""Functions of the logits: what attacks climb, and what defenses minimise beside cross-entropy.

What attacks climb takes logits z (n, classes) and a goal, and gives one value an image, (n,). The goal of an untargeted
loss is the true labels y (n,); that of a targeted one is pairs (n, 2) of true label and target.
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


def divergence_ascent(z: Tensor, clean: Tensor) -> Tensor:
    """A function of z whose gradient is a positive multiple of that of KL(softmax(clean), softmax(z)), image by image.

    The gradient with respect to z is q - p. For a confident model both are 1 at the same class and their difference
    rounds to 0; here that entry is minus the sum of the others, which are small and precise (docs/adr/0006).
    """
    with torch.no_grad():
        difference = z.softmax(1) - clean.softmax(1)
        top = clean.argmax(1, keepdim=True)
        rest = difference.scatter(1, top, 0.0)
        difference = difference.scatter(1, top, -rest.sum(1, keepdim=True))
        largest = difference.abs().amax(1, keepdim=True)
        difference = difference / torch.where(largest > 0, largest, 1.0)
    return (difference * z).sum(1)


def kl_divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(softmax(clean), softmax(adversarial)) of logits (n, classes): how far the second moved, (n,)."""
    log_p, log_q = clean.log_softmax(1), adversarial.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def boost(z: Tensor, y: Tensor) -> Tensor:
    """-log(1 - the largest other probability), the second term of MART's boosted cross-entropy, (n,)."""
    strongest = likeliest_others(z, y, 1)
    without = z.scatter(1, strongest, -torch.inf)
    return torch.logsumexp(z, 1) - torch.logsumexp(without, 1)


def doubt(z: Tensor, y: Tensor) -> Tensor:
    """1 - p_y, as the sum of the other probabilities, (n,)."""
    return (torch.logsumexp(_others(z, y), 1) - torch.logsumexp(z, 1)).exp()


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
