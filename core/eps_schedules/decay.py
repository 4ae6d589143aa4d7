"""Decay: linearly down from the whole eps, then clean images only."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from core.eps_schedules.base import EpsSchedule


class Decay(EpsSchedule):
    """Hou et al. 2022, https://arxiv.org/abs/2204.13232: 2 -> 0.5 over 50 of 60 epochs, the last 10 clean only."""

    title: ClassVar[str] = "Linearly down from the whole eps, then clean images only"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"

    name: Literal["decay"] = "decay"
    final: float = Field(0.25, gt=0, le=1, description="Strength when the adversarial part ends.")
    until: float = Field(5 / 6, gt=0, le=1, description="Share of the run that the adversarial part takes.")

    def factor(self, share: float) -> float:
        """1 -> ``final`` up to ``until``, then 0."""
        return 0.0 if share >= self.until else 1 + (self.final - 1) * share / self.until
