"""Plasma fractals by the diamond-square algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from core.projections import per_image
from core.rng import Rng


def plasma(rng: Rng, height: int, width: int, decay: float) -> Tensor:
    """One fractal an image, (n, 1, height, width) float64, cut from a square that spans [0, 1].

    The square wraps around; its side is the power of two that holds the image. At each halving of the step the
    wobble of the new points falls to 1 / ``decay`` squared.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    ground = torch.zeros(len(rng), side, side, dtype=torch.float64, device=rng.keys.device)
    step, wobble = side, 100.0**2
    while step >= 2:
        half, count = step // 2, side // step
        # centres of squares, then the middles of horizontal and of vertical sides
        noise = wobble * (2 * rng.fork(f"step-{step}").uniform(3, count, count).double() - 1)
        corner = ground[:, ::step, ::step]
        beside, below = corner.roll(-1, 2), corner.roll(-1, 1)
        centre = (corner + beside + below + beside.roll(-1, 1)) / 4 + noise[:, 0]
        ground[:, half::step, half::step] = centre
        ground[:, ::step, half::step] = (corner + beside + centre + centre.roll(1, 1)) / 4 + noise[:, 1]
        ground[:, half::step, ::step] = (corner + below + centre + centre.roll(1, 2)) / 4 + noise[:, 2]
        step, wobble = half, wobble / decay**2
    ground -= per_image(ground.flatten(1).amin(1))[:, 0]
    ground /= per_image(ground.flatten(1).amax(1))[:, 0]
    return ground[:, None, :height, :width]
