"""Cyclic: one triangle, up to the peak and back to zero."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from core.schedules.base import Schedule


class Cyclic(Schedule):
    """One triangular cycle, as in Wong et al. 2020 (fast adversarial training), https://arxiv.org/abs/2001.03994."""

    title: ClassVar[str] = "One triangle from 0 to the peak and back to 0"
    paper: ClassVar[str] = "https://arxiv.org/abs/2001.03994"

    name: Literal["cyclic"] = "cyclic"
    peak_at: float = Field(0.4, gt=0, lt=1, description="Where the peak lies, as a share of the run.")

    def factor(self, t: float, epochs: float) -> float:
        """Linear on both sides of the peak."""
        share = t / epochs
        return share / self.peak_at if share < self.peak_at else (1 - share) / (1 - self.peak_at)
