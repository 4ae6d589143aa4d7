"""Ramp: held at zero for a while, then linearly up to the whole eps."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from core.eps_schedules.base import EpsSchedule


class Ramp(EpsSchedule):
    """A linear ramp; with ``hold`` the one that suits a model trained on clean images only, arXiv 2509.23325."""

    title: ClassVar[str] = "Zero for a while, then linearly up to the whole eps"
    paper: ClassVar[str] = "https://arxiv.org/abs/2509.23325"

    name: Literal["ramp"] = "ramp"
    hold: float = Field(0, ge=0, lt=1, description="Share of the run at strength 0: clean images only.")
    full: float = Field(0.5, gt=0, le=1, description="Share of the run at which the whole eps is reached.")

    @model_validator(mode="after")
    def _in_order(self) -> Ramp:
        if self.hold >= self.full:
            raise ValueError(f"hold ({self.hold:g}) has to be less than full ({self.full:g})")
        return self

    def factor(self, share: float) -> float:
        """0 up to ``hold``, 1 from ``full`` on, linear between."""
        return min(1.0, max(0.0, (share - self.hold) / (self.full - self.hold)))
