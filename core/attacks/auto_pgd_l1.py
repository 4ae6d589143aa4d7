"""APGD for l1: sparse steps whose sparsity follows the search, and radii that shrink to eps.

Croce and Hein 2021, https://arxiv.org/abs/2103.01208, section 4 and algorithm 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.attacks.base import Found
from core.attacks.climb import Climb, Results, begin
from core.gradients import slope
from core.losses import Loss
from core.projections import per_image, project, sparse_sign
from core.rng import Rng
from core.threat import ThreatModel

_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # radius over eps, share of the steps
_SHRINK, _SMALLEST = 1.5, 0.1  # the step shrinks by 1.5 down to a tenth of eps


def auto_pgd_l1(
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
    """From Gaussian noise, the first misclassified iterate inside eps of each image, or the one of highest loss.

    Three stages in balls of 3, 2 and 1 times eps, each from the best point of the one before. The step and the share of
    coordinates that it moves follow how sparse the best point has become. Call inside ``frozen``.
    """
    start = x + rng.normal(*x.shape[1:])
    first, second = (math.ceil(share * steps) for _, share in _STAGES[:-1])
    lengths = (first, second, max(steps - first - second, 1))
    queries = 0
    for stage, ((radius, _), length) in enumerate(zip(_STAGES, lengths, strict=True)):
        ball = ThreatModel(norm="l1", eps=radius * threat.eps)
        last = stage == len(_STAGES) - 1
        found = _stage(
            model, project(start, x, ball), x, goal, ball, loss,
            steps=length, samples=samples, stop_when_fooled=last, queries=queries,
        )  # fmt: skip
        start = found.x_adv
        queries += (length + 1) * samples
    return found


def _stage(
    model: nn.Module,
    start: Tensor,
    x: Tensor,
    goal: Tensor,
    ball: ThreatModel,
    loss: Loss,
    *,
    steps: int,
    samples: int,
    stop_when_fooled: bool,
    queries: int,
) -> Found:
    period = max(int(0.04 * steps), 1)
    pixels = x[0].numel()
    climb, logits = begin(model, start, x, goal, loss, ball.eps, samples)
    changed = _changed(climb)
    share = changed / pixels / 1.5
    results = Results(start)
    if stop_when_fooled and (stays := results.take(climb, logits, queries + samples)) is not None:
        changed, share = changed[stays], share[stays]
    for step in range(steps):
        if len(climb.rows) == 0:
            break
        move = per_image(climb.step_size) * sparse_sign(climb.grad, share)
        x_new = project(climb.x + move, climb.clean, ball)
        grad, value, logits = slope(model, x_new, climb.goal, loss, samples=samples)
        climb.advance(x_new, grad, value)
        if stop_when_fooled:
            stays = results.take(climb, logits, queries + (step + 2) * samples)
            if stays is not None:
                changed, share = changed[stays], share[stays]
        if (step + 1) % period == 0:
            now = _changed(climb)
            sparser = now < 0.95 * changed
            share, changed = now / pixels / 1.5, now
            smaller = (climb.step_size / _SHRINK).clamp_min(_SMALLEST * ball.eps)
            climb.step_size = torch.where(sparser, torch.full_like(smaller, ball.eps), smaller)
            climb.return_to_best(sparser)
    return results.found(climb)


def _changed(climb: Climb) -> Tensor:
    """How many coordinates differ from the clean image at the best point, (n,)."""
    return (climb.x_best != climb.clean).flatten(1).sum(1).float()
