"""Successive halving on paper: rungs of fewer candidates and more passes, and which models nothing else beats."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from core.defenses.auto import Auto

Key = TypeVar("Key", bound=Hashable)

_LEAST_IMAGES = 64  # a batch


@dataclass(frozen=True)
class Rung:
    """So many candidates, each trained on ``images`` images with ``fb`` passes, ``share`` of the winner's."""

    candidates: int
    share: float
    images: int
    fb: float


def plan(candidates: int, *, eta: int, images: int, fb_per_image: float, scale: float = 1.0) -> list[Rung]:
    """The rungs before the winner's training; none for a single candidate.

    One of ``eta`` candidates goes on and gets ``eta`` times the passes, so that all rungs cost about the same. Images
    and epochs grow alike, by the square root of ``eta``.

    Args:
        images: all that there are for training.
        fb_per_image: passes on each of them in the winner's training.
        scale: of all passes, where a slow machine cannot pay for them.
    """
    sizes = []
    while candidates > 1:
        sizes.append(candidates)
        candidates = max(1, candidates // eta)
    rungs = []
    for number, size in enumerate(sizes):
        share = scale * float(eta) ** (number - len(sizes))
        rows = min(images, max(_LEAST_IMAGES, math.ceil(images * math.sqrt(share))))
        rungs.append(Rung(size, share, rows, share * images * fb_per_image))
    return rungs


def cost(rungs: list[Rung]) -> float:
    """Passes of all candidates in all rungs."""
    return sum(rung.candidates * rung.fb for rung in rungs)


def expected(auto: Auto, images: int) -> tuple[float, float]:
    """Passes of the search and of the winner's training, as far as nothing cuts them short."""
    rungs = plan(len(auto.candidates), eta=auto.eta, images=images, fb_per_image=auto.fb_per_image)
    return cost(rungs), images * auto.fb_per_image


def pareto(points: Mapping[Key, tuple[float, float]]) -> list[Key]:
    """The keys of those (clean, robust) that no other equals in both and exceeds in one; best clean first."""
    best = [
        key
        for key, (clean, robust) in points.items()
        if not any(c >= clean and r >= robust and (c, r) != (clean, robust) for c, r in points.values())
    ]
    return sorted(best, key=lambda key: points[key], reverse=True)
