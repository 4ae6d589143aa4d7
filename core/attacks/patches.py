"""The random patches of the Square attack, each image at its own place.

Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049: algorithms 2 (linf) and 3 (l2), and the l1 form of Croce
and Hein 2021, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from core.projections import norm_of, per_image, project
from core.rng import Rng
from core.threat import ThreatModel

# from query Q on, squares of the first share of the pixels over D; the paper's schedule for 10,000 queries
_SHRINKING = ((10, 2), (50, 4), (200, 8), (500, 16), (1000, 32), (2000, 64), (4000, 128), (6000, 256), (8000, 512))
_TILES = 5  # the l2 and l1 searches begin with 5 x 5 tiles
_TINY = 1e-12


def patch_side(first_share: float, query: float, shape: torch.Size, norm: str) -> int:
    """Side of the square at this query of 10,000, in pixels, for images of ``shape`` (n, c, h, w)."""
    divisor = max((d for begin, d in _SHRINKING if query > begin), default=1)
    height, width = shape[2:]
    side = max(round(math.sqrt(first_share / divisor * height * width)), 1)
    if norm != "linf":  # its pattern has a middle
        side = max(side, 3) | 1
    return min(side, height, width)


class Draws:
    """The random numbers of a block of queries: places, orientation and signs, for each image."""

    def __init__(self, rng: Rng, *, length: int, channels: int) -> None:
        self._values = rng.uniform(length, 5 + channels)

    def keep(self, mask: Tensor) -> None:
        """Drop the other images."""
        self._values = self._values[mask]

    def place(self, query: int, number: int, room: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Top and left of square 0 or 1, uniform on 0..room, int64 (n,) each."""
        u = self._values[:, query, 2 * number : 2 * number + 2]
        return (u[:, 0] * (room[0] + 1)).long(), (u[:, 1] * (room[1] + 1)).long()

    def upright(self, query: int) -> Tensor:
        """A fair coin, (n,)."""
        return self._values[:, query, 4] < 0.5

    def signs(self, query: int) -> Tensor:
        """-1 or 1 for each channel, (n, c, 1, 1)."""
        return torch.where(self._values[:, query, 5:] < 0.5, -1.0, 1.0)[:, :, None, None]


def first_patches(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """Where the search begins: vertical stripes for linf, a tiling for l2 and l1."""
    _, channels, height, width = x.shape
    if threat.norm == "linf":
        stripes = torch.where(rng.fork("stripes").uniform(channels, 1, width) < 0.5, -1.0, 1.0)
        return (x + threat.eps * stripes).clamp_(0, 1)
    side = max(min(height, width) // _TILES, 1)
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    signs = torch.where(rng.fork("signs").uniform(channels, rows, columns) < 0.5, -1.0, 1.0)
    upright = rng.fork("upright").uniform(rows, columns)[:, None] < 0.5
    pattern = _pattern(side, threat.norm, x.device)
    tiles = torch.where(upright[..., None, None], pattern, pattern.T) * signs[..., None, None]
    delta = torch.zeros_like(x)
    tiled = tiles.transpose(3, 4).reshape(len(x), channels, rows * side, columns * side)
    delta[:, :, top : top + rows * side, left : left + columns * side] = tiled
    return _onto_sphere(delta, x, threat)


def patched(best: Tensor, x: Tensor, threat: ThreatModel, draws: Draws, query: int, side: int) -> Tensor:
    """A candidate for each image: ``best`` with a square changed."""
    height, width = x.shape[2:]
    room = (height - side, width - side)
    target = _inside(draws.place(query, 0, room), side, x)
    if threat.norm == "linf":
        return torch.where(target, (x + threat.eps * draws.signs(query)).clamp_(0, 1), best)
    # mass moves from a second square into the first, which gets a new pattern on top of its old one
    source = _inside(draws.place(query, 1, room), side, x)
    delta = best - x
    windows = _windows(draws.place(query, 0, room), side, delta)
    pattern = _pattern(side, threat.norm, x.device)
    old = delta[windows]
    turned = torch.where(per_image(draws.upright(query)), pattern, pattern.T)
    new = turned * draws.signs(query) + old / (_size(old, threat.norm) + _TINY)
    freed = _size(delta * (target | source), threat.norm)
    spare, channels = per_image(norm_of(delta, threat.norm)), x.shape[1]
    if threat.norm == "l2":
        budget = ((threat.eps**2 - spare**2).clamp_min(0) / channels + freed**2).sqrt()
    else:
        budget = (threat.eps - spare).clamp_min(0) + channels * freed
    delta = torch.where(source, 0.0, delta)
    delta[windows] = new / (_size(new, threat.norm) + _TINY) * budget
    return _onto_sphere(delta, x, threat)


def _inside(place: tuple[Tensor, Tensor], side: int, x: Tensor) -> Tensor:
    """Mask of each image's square, (n, 1, h, w)."""
    inside = []
    for start, length in zip(place, x.shape[2:], strict=True):
        offset = torch.arange(length, device=x.device) - start[:, None]
        inside.append((offset >= 0) & (offset < side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _windows(place: tuple[Tensor, Tensor], side: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of each image's square in (n, c, h, w); they select (n, c, side, side)."""
    steps = torch.arange(side, device=x.device)
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    rows = (place[0][:, None] + steps)[:, None, :, None]
    columns = (place[1][:, None] + steps)[:, None, None, :]
    return images, channels, rows, columns


def _size(window: Tensor, norm: str) -> Tensor:
    """Norm of each channel, (n, c, 1, 1)."""
    size: Tensor = window.norm(p=2 if norm == "l2" else 1, dim=(2, 3), keepdim=True)
    return size


def _onto_sphere(delta: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """All of eps is used (before the box)."""
    if threat.norm == "l1":
        return project(x + delta, x, threat)
    return (x + delta * per_image(threat.eps / (norm_of(delta, "l2") + _TINY))).clamp_(0, 1)


@lru_cache(maxsize=64)
def _pattern(side: int, norm: str, device: torch.device) -> Tensor:
    """Two opposite pyramids, one above the other, of unit norm, (side, side): eq. 2 of the paper."""
    power = 2 if norm == "l2" else 4
    upper, lower = _pyramid(side // 2, side, power), _pyramid(side - side // 2, side, power)
    pattern = torch.cat([upper, -lower])
    size: Tensor = pattern.norm(p=2 if norm == "l2" else 1)
    return (pattern / size).to(device)


def _pyramid(height: int, width: int, power: int) -> Tensor:
    """At distance k from the centre (largest of both axes), the sum of 1 / (j + 1)^power for j from k on."""
    vertical = (torch.arange(height) - height // 2).abs()
    horizontal = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(vertical[:, None], horizontal[None, :])
    levels = torch.arange(1, max(height, width) // 2 + 2).float() ** -power
    from_here = levels.flip(0).cumsum(0).flip(0)
    return from_here[distance]
