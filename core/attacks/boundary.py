"""The fast adaptive boundary attack: adversarial examples of small norm.

Croce and Hein 2020, https://arxiv.org/abs/1907.02044, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.attacks.base import Found
from core.gradients import slope
from core.hyperplanes import shortest_way
from core.losses import likeliest_others, targeted_margin
from core.projections import norm_of, per_image
from core.threat import Norm

_LARGEST_PULL = 0.1  # alpha_max: how far a step may be drawn back to the clean image
_OVERSHOOT = 1.05  # eta
_BACKWARD = 0.9  # beta: after a success, go back this far towards the clean image

_DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def nearest_boundary(
    model: nn.Module,
    start: Tensor,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    *,
    steps: int,
    target: Tensor | None = None,
    rivals: int = 1,
    enough: float = 0.0,
) -> Found:
    """The misclassified point of smallest norm that each image's search met; the clean image if none.

    Each step linearises the model, goes the shortest way onto the decision hyperplane within the box, both from here
    and from the clean image, and mixes the two by their lengths. Call inside ``frozen``.

    Args:
        target: the class whose boundary is sought, (n,). None: the nearest by linearisation among the ``rivals``
            classes that are likeliest at the current point; each costs a backward pass.
        enough: an image that is fooled within this norm leaves; 0 searches on for the smallest.
    """
    result = x.clone()
    smallest = x.new_full((len(x),), torch.inf)
    queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    here = start
    for _ in range(steps):
        gap, normal, asked = _nearest_plane(model, here, y, target, norm, rivals)
        flat_here, flat_clean = here.flatten(1), x.flatten(1)
        # the plane gap + <normal, z - here> = 0, seen from both points
        gap_clean = gap + (normal * (flat_clean - flat_here)).sum(1)
        from_here = shortest_way(flat_here, normal, -gap, norm).view_as(x)
        from_clean = shortest_way(flat_clean, normal, -gap_clean, norm).view_as(x)
        lengths = [norm_of(way, norm).clamp_min(1e-8) for way in (from_here, from_clean)]
        pull = per_image((lengths[0] / (lengths[0] + lengths[1])).clamp_max(_LARGEST_PULL))
        onward, anew = here + _OVERSHOOT * from_here, x + _OVERSHOOT * from_clean
        here = ((1 - pull) * onward + pull * anew).clamp_(0, 1)

        fooled = model(here).argmax(1) != y
        queries[rows] += asked + 1
        distance = norm_of(here - x, norm)
        better = fooled & (distance < smallest[rows])
        result[rows[better]], smallest[rows[better]] = here[better], distance[better]
        here = torch.where(per_image(fooled), x + _BACKWARD * (here - x), here)
        stay = smallest[rows] > enough
        if not stay.all():
            rows, x, y, here = (part[stay] for part in (rows, x, y, here))
            target = None if target is None else target[stay]
            if len(rows) == 0:
                break
    return Found(result, queries)


def _nearest_plane(
    model: nn.Module, here: Tensor, y: Tensor, target: Tensor | None, norm: Norm, rivals: int
) -> tuple[Tensor, Tensor, int]:
    """The linearised decision: the other logit minus the true one (n,), its gradient (n, d), and passes made."""
    if target is not None:
        grad, gap, _ = slope(model, here, torch.stack([y, target], 1), targeted_margin)
        return gap, grad.flatten(1), 1
    classes = likeliest_others(model(here), y, rivals)
    nearest, gap, normal = (torch.empty(0),) * 3
    for number in range(rivals):
        grad, other_gap, _ = slope(model, here, torch.stack([y, classes[:, number]], 1), targeted_margin)
        other = grad.flatten(1)
        distance = other_gap.abs() / norm_of(grad, _DUAL[norm]).clamp_min(1e-12)
        if number == 0:
            nearest, gap, normal = distance, other_gap, other
        else:
            nearer = distance < nearest
            nearest, gap = torch.where(nearer, distance, nearest), torch.where(nearer, other_gap, gap)
            normal = torch.where(nearer[:, None], other, normal)
    return gap, normal, 1 + rivals
