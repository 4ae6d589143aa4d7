"""Projected gradient ascent on a loss, in the two forms that attacks and defenses need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.attacks.base import Found
from core.gradients import ascent_gradient, slope
from core.losses import Loss, cross_entropy_margin
from core.projections import ascent_step
from core.threat import ThreatModel


def ascend(
    model: nn.Module,
    start: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """The last of ``steps`` iterates from ``start``: what adversarial training trains on (Madry et al. 2018, eq. 2.1).

    x_adv <- project(x_adv + step_size * steepest(grad CE)). Call inside ``frozen``.
    """
    x_adv = start
    for _ in range(steps):
        grad, _ = ascent_gradient(model, x_adv, y)
        x_adv = ascent_step(x_adv, grad, x, threat, step_size)
    return x_adv


def first_success(
    model: nn.Module,
    start: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    loss: Loss = cross_entropy_margin,
) -> Found:
    """The first misclassified iterate of each image, or its last: what evaluation wants.

    An image leaves the batch as soon as an iterate is misclassified. Keeping that iterate (later steps may
    lose it again) makes the attack stronger, and the shrinking batch makes it faster.
    """
    result = start.clone()
    queries = torch.full((len(x),), steps, device=x.device)
    active = torch.arange(len(x), device=x.device)
    x_adv = start
    for step in range(steps):
        grad, _, logits = slope(model, x_adv, y, loss)
        standing = logits.argmax(1) == y
        if not standing.all():
            result[active[~standing]] = x_adv[~standing]
            queries[active[~standing]] = step + 1
            active, x_adv, x, y, grad = (t[standing] for t in (active, x_adv, x, y, grad))
            if len(active) == 0:
                break
        x_adv = ascent_step(x_adv, grad, x, threat, step_size)
    result[active] = x_adv
    return Found(result, queries)
