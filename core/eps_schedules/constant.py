"""Constant: the whole eps all the time."""

from __future__ import annotations

from typing import ClassVar, Literal

from core.eps_schedules.base import EpsSchedule


class ConstantEps(EpsSchedule):
    """No schedule."""

    title: ClassVar[str] = "The whole eps all the time"

    name: Literal["constant"] = "constant"

    def factor(self, share: float) -> float:
        """1."""
        return 1.0
