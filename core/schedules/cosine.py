"""Cosine: half a cosine from the peak to zero."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from core.schedules.base import Schedule


class Cosine(Schedule):
    """Cosine annealing without restarts, Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983 (eq. 5)."""

    title: ClassVar[str] = "Half a cosine from the peak to 0"
    paper: ClassVar[str] = "https://arxiv.org/abs/1608.03983"

    name: Literal["cosine"] = "cosine"

    def factor(self, t: float, epochs: float) -> float:
        """(1 + cos(pi t / epochs)) / 2."""
        return (1 + math.cos(math.pi * t / epochs)) / 2
