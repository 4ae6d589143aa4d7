"""Edges, and the distance from them, as OpenCV computes both."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# OpenCV's lengths of a step to the side, a diagonal one and a knight's move
_LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
_MOVES: list[tuple[tuple[int, int], float]] = [
    ((down, right), length)
    for down, right in itertools.product(range(-2, 3), repeat=2)
    if (length := _LENGTHS.get((min(abs(down), abs(right)), max(abs(down), abs(right)))))
]
_NEIGHBOURS = [step for step, length in _MOVES if length < 2]


def _at(x: Tensor, step: tuple[int, int], outside: float) -> Tensor:
    """The values one step, (down, right), away in (n, 1, h, w); ``outside`` beyond the border."""
    down, right = step
    height, width = x.shape[2:]
    padded = F.pad(x, [2] * 4, value=outside)
    return padded[..., 2 + down : 2 + down + height, 2 + right : 2 + right + width]


def canny(x: Tensor, low: float, high: float) -> Tensor:
    """Canny's edges of grey levels (n, 1, h, w), as bool: Sobel gradients in the L1 norm, thinned, hysteresis."""
    right, down = _sobel(x.float())
    slope = right.abs() + down.abs()
    ridge = _ridge(slope, right, down) & (slope > low)
    edge = ridge & (slope > high)
    while True:
        beside = torch.stack([_at(edge.float(), step, 0) for step in _NEIGHBOURS]).amax(0) > 0
        grown = edge | (ridge & beside)
        if torch.equal(grown, edge):
            return edge
        edge = grown


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and down, the border repeated."""
    padded = F.pad(x, [1] * 4, mode="replicate")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return rows[..., 2:] - rows[..., :-2], columns[..., 2:, :] - columns[..., :-2, :]


def _ridge(slope: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Where the slope is largest across the edge, whose direction is rounded to 45 degrees.

    Of two equal neighbours along an axis the first one counts.
    """
    steepness = math.tan(math.pi / 8)
    across, along = right.abs(), down.abs()
    horizontal = (slope > _at(slope, (0, -1), 0)) & (slope >= _at(slope, (0, 1), 0))
    vertical = (slope > _at(slope, (-1, 0), 0)) & (slope >= _at(slope, (1, 0), 0))
    falling = (slope > _at(slope, (-1, -1), 0)) & (slope > _at(slope, (1, 1), 0))
    rising = (slope > _at(slope, (-1, 1), 0)) & (slope > _at(slope, (1, -1), 0))
    diagonal = torch.where((right < 0) ^ (down < 0), rising, falling)
    steep = torch.where(along > across / steepness, vertical, diagonal)
    return torch.where(along < across * steepness, horizontal, steep)


def distance_to(marked: Tensor, farthest: float) -> Tensor:
    """Length of the shortest path to a marked pixel, (n, 1, h, w) float32, at most ``farthest``."""
    distance = torch.where(marked, 0.0, farthest)
    while True:
        nearer = distance
        for step, length in _MOVES:
            nearer = torch.minimum(nearer, _at(distance, step, farthest) + length)
        if torch.equal(nearer, distance):
            return distance
        distance = nearer
