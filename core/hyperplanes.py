"""The shortest way from a point of the box onto a hyperplane, staying in the box: the step of FAB.

Croce and Hein 2020, https://arxiv.org/abs/1907.02044, section 3.1. With the gap c >= 0 to close, coordinate i can gain
at most |w_i| * room_i, where room_i is its way to the side of the box. linf and l2 move all coordinates at once, as
min(t, room_i) and min(t * |w_i|, room_i); the gain is concave and piecewise linear in t, so Newton's method from 0
climbs to the exact t in a few steps, without sorting. l1 spends on the largest |w_i| first.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NEWTON_STEPS = 50  # each passes a breakpoint; five to eight are usual


def shortest_way(x: Tensor, w: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The smallest d in ``norm`` with <w, d> = gap and 0 <= x + d <= 1; all the room there is if none reaches.

    Args: points x (n, d) in [0, 1]; normals w (n, d); the gap <w, target> - <w, x> to close, (n,), of either sign.
    """
    direction = w * torch.where(gap < 0, -1.0, 1.0)[:, None]
    room = torch.where(direction > 0, 1 - x, x) * (w != 0)
    largest = w.abs().amax(1)
    largest = torch.where(largest > 0, largest, 1.0)  # gradients of 1e-25 would underflow in the sums
    weight, gap = w.abs() / largest[:, None], gap.abs() / largest
    size = _largest_first(weight, room, gap) if norm == "l1" else _all_at_once(weight, room, gap, norm)
    return size * direction.sign()


def _all_at_once(weight: Tensor, room: Tensor, gap: Tensor, norm: str) -> Tensor:
    pace = torch.ones_like(weight) if norm == "linf" else weight
    rate = weight * pace  # what a coordinate gains per unit of t while it has room
    t = torch.zeros_like(gap)
    for _ in range(_NEWTON_STEPS):
        way = _way(pace, t)
        missing = gap - (weight * torch.minimum(way, room)).sum(1)
        speed = (rate * (way < room)).sum(1)
        step = torch.where(speed > 0, missing / speed.clamp_min(1e-30), 0.0).clamp_min(0)
        # an image is left alone once it is there, so that none depends on how long the others take
        moving = step > 1e-6 * t
        if not moving.any():
            break
        t = torch.where(moving, t + step, t)
    return torch.minimum(_way(pace, t), room)


def _way(pace: Tensor, t: Tensor) -> Tensor:
    return torch.where(pace > 0, pace * t[:, None], 0.0)  # t may be infinite where the plane is out of reach


def _largest_first(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    order = weight.argsort(1, descending=True)
    weight, room = weight.gather(1, order), room.gather(1, order)
    gain = weight * room
    missing = (gap[:, None] - (gain.cumsum(1) - gain)).clamp_min(0)
    spend = torch.minimum(room, missing / weight.clamp_min(1e-30))
    return torch.zeros_like(room).scatter_(1, order, spend)
