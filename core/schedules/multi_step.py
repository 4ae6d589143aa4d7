"""Multi-step: a fixed decay at given points of the run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.schedules.base import Schedule


class MultiStep(Schedule):
    """Times gamma at each milestone; milestones are shares of the run, so they scale with its length."""

    title: ClassVar[str] = "Times gamma at given points of the run"

    name: Literal["multi-step"] = "multi-step"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), max_length=100, description="Points of decay, as shares of the run."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each decay.")

    def factor(self, t: float, epochs: float) -> float:
        """Gamma to the number of milestones passed."""
        # a milestone at 5/6 of 60 epochs is epoch 50, not 49.999: round where floats cannot tell
        passed = sum(round(t - share * epochs, 9) >= 0 for share in self.milestones)
        return float(self.gamma**passed)
