"""Projections onto a norm ball, and points drawn uniformly from it.

All tensors are images (n, c, h, w); norms are taken per image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.rng import Rng
from core.threat import ThreatModel


def norm_of(delta: Tensor, norm: str) -> Tensor:
    """Norm of each perturbation, (n,)."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(p=2, dim=1)


def per_image(values: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, 1), to broadcast over images."""
    return values.view(-1, 1, 1, 1)


def project(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point to ``x_adv`` in the ball around ``x``, then clipped to the box [0, 1].

    Clipping moves every coordinate towards ``x`` (which is in the box), so the result stays in the ball.
    """
    if threat.norm == "linf":
        return x_adv.clamp(x - threat.eps, x + threat.eps).clamp_(0, 1)
    delta = x_adv - x
    norms = norm_of(delta, "l2").clamp_min(1e-12)
    return (x + delta * per_image((threat.eps / norms).clamp_max(1))).clamp_(0, 1)


def uniform_in_ball(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """A point drawn uniformly from each image's ball, clipped to the box.

    For l2 the direction is Gaussian and the radius eps * u^(1/d), which is uniform in volume.
    """
    shape = x.shape[1:]
    if threat.norm == "linf":
        noise = (rng.fork("ball").uniform(*shape) * 2 - 1) * threat.eps
    else:
        direction = rng.fork("direction").normal(*shape)
        radius = rng.fork("radius").uniform(1).flatten() ** (1 / direction[0].numel()) * threat.eps
        noise = direction * per_image(radius / norm_of(direction, "l2").clamp_min(1e-12))
    return (x + noise).clamp_(0, 1)


def steepest(grad: Tensor, norm: str) -> Tensor:
    """The unit step of steepest ascent: sign for linf, the normalised gradient for l2; 0 where grad is 0."""
    if norm == "linf":
        return grad.sign()
    scaled = largest_to_one(grad)
    return scaled / per_image(norm_of(scaled, "l2").clamp_min(1))


def largest_to_one(grad: Tensor) -> Tensor:
    """Each image's gradient over its largest magnitude; 0 where all is 0.

    A confident model has gradients of 1e-25 and less, whose squares and means underflow: scaled, they still point.
    """
    largest = norm_of(grad, "linf")
    # two steps: the reciprocal of a denormal number is infinite
    scaled = grad / per_image(torch.where(largest > 0, largest, 1.0))
    return scaled.clamp_(-1, 1)
