"""Step: a fixed decay at a fixed interval."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from core.schedules.base import Schedule


class Step(Schedule):
    """step-LR(i, gamma), the ablation of Jeddi et al. 2020: times gamma after every i epochs."""

    title: ClassVar[str] = "Times gamma after every few epochs"
    paper: ClassVar[str] = "https://arxiv.org/abs/2012.13628"

    name: Literal["step"] = "step"
    every: float = Field(1, gt=0, description="Epochs between decays (i).")
    gamma: float = Field(0.5, gt=0, le=1, description="Factor of each decay.")

    def factor(self, t: float, epochs: float) -> float:
        """gamma ** floor(t / every)."""
        return float(self.gamma ** math.floor(round(t / self.every, 9)))  # 0.3 / 0.1 is 3 here, not 2.999...
