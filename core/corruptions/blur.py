"""Blur by a lens, by glass, by motion and by zooming."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.corruptions.base import Corruption, rounded, truncated
from core.corruptions.filters import correlate, disk, gaussian, motion_blur, zoomed
from core.rng import Rng


def gaussian_blur(x: Tensor, rng: Rng, sigma: float) -> Tensor:
    """Gaussian filter, ``sigma`` in pixels."""
    return gaussian(x, sigma)


def defocus_blur(x: Tensor, rng: Rng, radius: float, alias_blur: float) -> Tensor:
    """A disk of ``radius`` pixels whose rim is softened by a Gaussian of ``alias_blur`` pixels."""
    return correlate(x, disk(radius, alias_blur))


def motion(x: Tensor, rng: Rng, radius: int, sigma: float) -> Tensor:
    """Smear each image in a direction within 45 degrees of the horizontal."""
    angle = 90 * rng.uniform(1).flatten() - 45
    return rounded(motion_blur(x, radius, sigma, angle))


def zoom_blur(x: Tensor, rng: Rng, stop: float, step: float) -> Tensor:
    """The mean of the image and of its enlargements by 1, 1 + step and so on up to ``stop``."""
    # numpy's arange, as published: whether rounding lets one factor more in decides the constants
    factors = np.arange(1, stop, step).tolist()
    total = x.clone()
    for factor in factors:
        total += zoomed(x, factor)
    return total / (len(factors) + 1)


def glass_blur(x: Tensor, rng: Rng, sigma: float, reach: int, iterations: int) -> Tensor:
    """Blur, shift pixels by up to ``reach``, blur again.

    The published code means to swap two pixels, yet its swap of numpy views copies one over the other. The sets
    contain the copies, and so does this.
    """
    x = truncated(gaussian(x, sigma))
    n, _, height, width = x.shape
    for iteration in range(iterations):
        source = _scattered(rng.fork(iteration), height, width, reach)
        x = x.flatten(2).gather(2, source.view(n, 1, -1).expand(-1, x.shape[1], -1)).view_as(x)
    return gaussian(x, sigma)


def _scattered(rng: Rng, height: int, width: int, reach: int) -> Tensor:
    """Where each pixel's value comes from, (n, h * w) as places in the flattened image.

    Pixels are visited from the last to the first, rows ``reach`` + 1 to h - ``reach``, columns likewise. Each takes
    the present value of a neighbour -``reach``..``reach`` - 1 away, so chains form: followed by doubling the steps.
    """
    place = torch.arange(height * width, device=rng.keys.device).view(height, width)
    shift = (rng.uniform(2, height, width) * (2 * reach)).long() - reach
    visited = torch.zeros_like(place, dtype=torch.bool)
    visited[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    neighbour = torch.where(visited, place + shift[:, 0] * width + shift[:, 1], place).flatten(1)
    # a neighbour that was visited earlier has a new value by now: the chain goes on there
    earlier = visited.flatten()[neighbour] & (neighbour > place.flatten())
    # nodes 0 .. h w - 1 are the new values and h w .. 2 h w - 1 the old ones, where every chain ends
    old = torch.arange(height * width, 2 * height * width, device=place.device).expand_as(neighbour)
    link = torch.cat([torch.where(earlier, neighbour, neighbour + height * width), old], 1)
    while (link[:, : height * width] < height * width).any():
        link = link.gather(1, link)
    return link[:, : height * width] - height * width


BLUR = (
    Corruption(
        "defocus-blur",
        "blur",
        defocus_blur,
        cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    Corruption(
        "glass-blur",
        "blur",
        glass_blur,
        cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    Corruption(
        "motion-blur",
        "blur",
        motion,
        cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    Corruption(
        "zoom-blur",
        "blur",
        zoom_blur,
        cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    Corruption(
        "gaussian-blur",
        "blur",
        gaussian_blur,
        cifar=((0.4,), (0.6,), (0.7,), (0.8,), (1,)),
        imagenet=((1,), (2,), (3,), (4,), (6,)),
    ),
)
