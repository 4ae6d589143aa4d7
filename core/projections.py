"""Projections onto a norm ball and the box, points drawn uniformly from a ball, and steps of steepest ascent.

All tensors are images (n, c, h, w); norms are taken per image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.rng import Rng
from core.threat import ThreatModel

_NEWTON_STEPS = 100
_L1_SHARE = 0.05  # of the coordinates move in one l1 step: 39 of 784, 153 of 3072


def norm_of(delta: Tensor, norm: str) -> Tensor:
    """Norm of each perturbation, (n,)."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    return flat.abs().sum(1) if norm == "l1" else flat.norm(p=2, dim=1)


def per_image(values: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, 1), to broadcast over images."""
    return values.view(-1, 1, 1, 1)


def project(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point to ``x_adv`` in the ball around ``x`` that is in the box [0, 1].

    For l2 it is the nearest point of the ball, then clipped: clipping moves every coordinate towards ``x`` (which
    is in the box), so the result stays in the ball. For l1 clipping would waste most of eps, so the projection
    is onto the ball and the box together.
    """
    if threat.norm == "linf":
        return x_adv.clamp(x - threat.eps, x + threat.eps).clamp_(0, 1)
    delta = x_adv - x
    if threat.norm == "l1":
        return (x + _onto_l1_ball_and_box(delta, x, threat.eps)).clamp_(0, 1)
    norms = norm_of(delta, "l2").clamp_min(1e-12)
    return (x + delta * per_image((threat.eps / norms).clamp_max(1))).clamp_(0, 1)


def onto_ball(delta: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest perturbation in the ball around zero, linf or l2, whatever the box."""
    if threat.norm == "linf":
        return delta.clamp(-threat.eps, threat.eps)
    if threat.norm == "l2":
        return delta * per_image((threat.eps / norm_of(delta, "l2").clamp_min(1e-12)).clamp_max(1))
    raise ValueError(f"no such projection for {threat.norm}")


def _onto_l1_ball_and_box(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """Euclidean projection onto {d: |d|_1 <= eps, 0 <= x + d <= 1}, Croce and Hein 2021, arXiv 2103.01208, prop. 2.1.

    Each coordinate becomes sign * min(max(|d| - shift, 0), room), where room is the way to the box's side. The sum
    falls with the shift; the shift that makes it eps is found by Newton's method within a shrinking bracket.
    """
    room = room_towards(delta, x).flatten(1)
    size = delta.abs().flatten(1)
    shift = low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    for _ in range(_NEWTON_STEPS):
        rest = size - shift
        excess = torch.minimum(rest.clamp_min(0), room).sum(1, keepdim=True) - eps
        # an image is left alone once it is there, so that none depends on how long the others take
        settled = (excess.abs() <= 1e-6 * eps) | ((excess < 0) & (shift == 0))
        if settled.all():
            break
        low, high = torch.where(excess > 0, shift, low), torch.where(excess < 0, shift, high)
        falling = ((rest > 0) & (rest <= room)).sum(1, keepdim=True)
        newton = shift + excess / falling.clamp_min(1)
        inside = (falling > 0) & (newton > low) & (newton < high)
        shift = torch.where(settled, shift, torch.where(inside, newton, (low + high) / 2))
    return torch.minimum((size - shift).clamp_min(0), room).view_as(delta) * delta.sign()


def room_towards(direction: Tensor, x: Tensor) -> Tensor:
    """How far each pixel can go in this direction before it leaves the box."""
    return torch.where(direction > 0, 1 - x, x)


def uniform_in_ball(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """A point drawn uniformly from each image's ball, then brought into the box.

    l2: a Gaussian direction and the radius eps * u^(1/d). l1: d + 1 exponential draws over their sum are uniform on
    a simplex, and random signs spread it over the ball.
    """
    shape = x.shape[1:]
    if threat.norm == "linf":
        noise = (rng.fork("ball").uniform(*shape) * 2 - 1) * threat.eps
    elif threat.norm == "l2":
        direction = rng.fork("direction").normal(*shape)
        radius = rng.fork("radius").uniform(1).flatten() ** (1 / direction[0].numel()) * threat.eps
        noise = direction * per_image(radius / norm_of(direction, "l2").clamp_min(1e-12))
    else:
        draws = -torch.log1p(-rng.fork("ball").uniform(*shape))
        slack = -torch.log1p(-rng.fork("slack").uniform(1).flatten())
        sign = torch.where(rng.fork("sign").uniform(*shape) < 0.5, -1.0, 1.0)
        noise = sign * draws * per_image(threat.eps / (norm_of(draws, "l1") + slack).clamp_min(1e-12))
    return (x + noise).clamp_(0, 1)


def steepest(grad: Tensor, norm: str) -> Tensor:
    """A step of unit norm along the gradient; 0 where the gradient is 0.

    linf: its sign. l2: normalised. l1: equal steps of the largest coordinates (Tramer and Boneh 2019, arXiv 1904.13000,
    section 3), since the single steepest one reaches its box side at once.
    """
    if norm == "linf":
        return grad.sign()
    scaled = largest_to_one(grad)
    if norm == "l2":
        return scaled / per_image(norm_of(scaled, "l2").clamp_min(1))
    return sparse_sign(scaled, torch.full((len(grad),), _L1_SHARE, device=grad.device))


def ascent_step(x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, step_size: float) -> Tensor:
    """project(x_adv + step_size * steepest(grad)).

    l1: pixels that stand already at the side of the box where the gradient pushes them take no part, or a step would be
    spent on them.
    """
    if threat.norm == "l1":
        grad = torch.where(room_towards(grad, x_adv) > 0, grad, 0.0)
    return project(x_adv + step_size * steepest(grad, threat.norm), x, threat)


def sparse_sign(grad: Tensor, share: Tensor) -> Tensor:
    """Sign of each image's largest coordinates, a ``share`` (n,) of all, with unit l1 norm."""
    size = grad.abs().flatten(1)
    rank = ((1 - share) * size.shape[1]).long().clamp(0, size.shape[1] - 1)
    threshold = size.sort(1).values.gather(1, rank[:, None])
    signs = torch.where(size >= threshold, grad.flatten(1).sign(), 0.0)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)


def best_linear(x: Tensor, grad: Tensor, threat: ThreatModel) -> Tensor:
    """The point of the ball where the linearised loss is greatest, brought into the box.

    l1: the largest coordinates first, each to its side of the box, until eps is spent.
    """
    if threat.norm != "l1":
        return project(x + threat.eps * steepest(grad, threat.norm), x, threat)
    room = room_towards(grad, x).flatten(1) * (grad.flatten(1) != 0)
    order = grad.abs().flatten(1).argsort(1, descending=True)
    sorted_room = room.gather(1, order)
    spent_before = sorted_room.cumsum(1) - sorted_room
    spend = torch.minimum(sorted_room, (threat.eps - spent_before).clamp_min(0))
    amount = torch.zeros_like(room).scatter_(1, order, spend)
    return (x + amount.view_as(x) * grad.sign()).clamp_(0, 1)


def largest_to_one(grad: Tensor) -> Tensor:
    """Each image's gradient over its largest magnitude; 0 where all is 0.

    A confident model has gradients of 1e-25 and less, whose squares and means underflow: scaled, they still point.
    """
    largest = norm_of(grad, "linf")
    # two steps: the reciprocal of a denormal number is infinite
    scaled = grad / per_image(torch.where(largest > 0, largest, 1.0))
    return scaled.clamp_(-1, 1)
