"""Drops of water or of mud on the lens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.corruptions.base import levels, truncated
from core.corruptions.colour import paint_levels
from core.corruptions.edges import canny, distance_to
from core.corruptions.filters import box, correlate, gaussian
from core.rng import Rng

_FARTHEST = 20  # pixels from an edge: water is as deep from there on
_SLACK = 1e-5  # of a pixel: the mean of nine equal distances is as long, in spite of rounding
_TILT = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))


def spatter(
    x: Tensor, rng: Rng, mean: float, spread: float, sigma: float, threshold: float, strength: float, mud: int
) -> Tensor:
    """Cover the image where smoothed noise exceeds the threshold: with pale turquoise water or with brown mud.

    The drops of a grey image have the colours' luminance. An image that gets no drop stays as it is, where the
    published code divides by zero.
    """
    noise = mean + spread * rng.normal(1, *x.shape[2:]).double()
    liquid = gaussian(noise, sigma)
    if mud:
        cover = gaussian((liquid > threshold).to(x), strength)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return x * (1 - cover) + cover * paint_levels(63, 42, 20, x)
    drops = truncated(torch.where(liquid < threshold, 0.0, liquid))
    shine = drops * _relief(drops)
    brightest = shine.amax((2, 3), keepdim=True)
    shine = strength * shine / torch.where(brightest > 0, brightest, 1.0)
    return x + shine * paint_levels(175, 238, 238, x)


def _relief(drops: Tensor) -> Tensor:
    """Light that falls on the drops from one side, as grey levels, (n, 1, h, w).

    The height is the distance from the drops' edges; its contrast is spread over all levels before it is tilted.
    """
    depth = box(distance_to(canny(levels(drops), 50, 150), _FARTHEST).to(drops))
    height = _equalised((depth + _SLACK).long(), _FARTHEST + 1).to(drops)
    tilted = correlate(height, drops.new_tensor(_TILT)).round_().clamp_(0, 255)
    return box(tilted).round_()


def _equalised(x: Tensor, count: int) -> Tensor:
    """cv2.equalizeHist of each image's levels 0 .. count - 1, to 0..255; an image of one level stays as it is."""
    flat = x.flatten(1)
    histogram = F.one_hot(flat, count).sum(1)
    total = histogram.cumsum(1)
    # the lowest level that occurs becomes 0
    lowest = histogram.gather(1, flat.amin(1, keepdim=True))
    rest = flat.shape[1] - lowest
    scaled = ((total - lowest) * (255 / rest.clamp_min(1).double())).round().long()
    spread = scaled.gather(1, flat)
    return torch.where(rest > 0, spread, flat).view_as(x)
