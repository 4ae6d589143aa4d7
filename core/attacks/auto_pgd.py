"""APGD, the step-size-free projected gradient ascent of AutoAttack.

Croce and Hein 2020, https://arxiv.org/abs/2003.01690, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.attacks.auto_pgd_l1 import auto_pgd_l1
from core.attacks.base import Found
from core.attacks.climb import Climb, Results, begin
from core.gradients import slope
from core.losses import Loss
from core.projections import per_image, project, steepest, uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel

_MOMENTUM = 0.75  # alpha of the paper
_RISES = 0.75  # rho: the share of steps that must raise the loss, or the step is halved


def auto_pgd(
    model: nn.Module,
    x: Tensor,
    goal: Tensor,
    threat: ThreatModel,
    loss: Loss,
    rng: Rng,
    *,
    steps: int,
    samples: int = 1,
) -> Found:
    """From a random start, the first misclassified iterate of each image, or the one of highest loss.

    Steps begin at 2 eps. At checkpoints that come closer and closer, an image whose loss rose in at most 75% of
    the steps since the last one, or has not improved at all since, halves its step and returns to its best point.
    For l1 see ``auto_pgd_l1``. Call inside ``frozen``.
    """
    if threat.norm == "l1":
        return auto_pgd_l1(model, x, goal, threat, loss, rng, steps=steps, samples=samples)
    period, shrink, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    start = uniform_in_ball(x, threat, rng)
    climb, logits = begin(model, start, x, goal, loss, 2 * threat.eps, samples)
    results = Results(start)
    results.take(climb, logits, samples)
    rises = torch.zeros_like(climb.loss)
    best_then, halved_then = climb.loss_best, torch.ones_like(climb.loss, dtype=torch.bool)
    since = 0
    for step in range(steps):
        if len(climb.rows) == 0:
            break
        x_new = _next_point(climb, threat, momentum=_MOMENTUM if step else 1.0)
        grad, value, logits = slope(model, x_new, climb.goal, loss, samples=samples)
        rises += climb.advance(x_new, grad, value)
        stays = results.take(climb, logits, (step + 2) * samples)
        if stays is not None:
            rises, best_then, halved_then = rises[stays], best_then[stays], halved_then[stays]
        since += 1
        if since == period:
            halve = (rises <= _RISES * period) | (~halved_then & (best_then >= climb.loss_best))
            climb.step_size = torch.where(halve, climb.step_size / 2, climb.step_size)
            climb.return_to_best(halve)
            best_then, halved_then, rises = climb.loss_best, halve, torch.zeros_like(rises)
            since, period = 0, max(period - shrink, shortest)
    return results.found(climb)


def _next_point(climb: Climb, threat: ThreatModel, *, momentum: float) -> Tensor:
    """z = P(x + size * ascent), then P(x + a (z - x) + (1 - a) (x - before)) with a the momentum."""
    size = per_image(climb.step_size)
    z = project(climb.x + size * steepest(climb.grad, threat.norm), climb.clean, threat)
    mixed = climb.x + momentum * (z - climb.x) + (1 - momentum) * (climb.x - climb.before)
    return project(mixed, climb.clean, threat)
