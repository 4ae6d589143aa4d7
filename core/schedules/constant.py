"""Constant: the peak throughout."""

from __future__ import annotations

from typing import ClassVar, Literal

from core.schedules.base import Schedule


class Constant(Schedule):
    """A fixed learning rate, as in Agarwal et al. 2021."""

    title: ClassVar[str] = "The peak throughout"

    name: Literal["constant"] = "constant"

    def factor(self, t: float, epochs: float) -> float:
        """Always 1."""
        return 1.0
