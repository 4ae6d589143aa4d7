"""fab: the fast adaptive boundary attack on the nearest of the likeliest classes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.attacks.boundary import nearest_boundary
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel

_MOST_RIVALS = 9  # a backward pass each: with 1,000 classes all would cost 999


class FAB(Attack):
    """FAB, Croce and Hein 2020, https://arxiv.org/abs/1907.02044.

    It seeks the smallest norm; an example counts once its norm is within eps. Restarts begin at a random point of
    the ball of half the radius.
    """

    title: ClassVar[str] = "Fast adaptive boundary attack: the smallest norm that fools"
    paper: ClassVar[str] = "https://arxiv.org/abs/1907.02044"

    name: Literal["fab"] = "fab"
    steps: int = Field(100, ge=1, le=10_000, description="Steps in each restart.")
    restarts: int = Field(1, ge=1, le=1000, description="Starts: the clean image, then random points.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One start; see the base class."""
        half = ThreatModel(norm=threat.norm, eps=threat.eps / 2)
        start = uniform_in_ball(x, half, rng) if run.number else x
        rivals = min(model(x[:1]).shape[1] - 1, _MOST_RIVALS)
        return nearest_boundary(model, start, x, y, threat.norm, steps=self.steps, rivals=rivals, enough=threat.eps)

    def work(self, num_classes: int) -> list[float]:
        """Two forward passes a step and an FB for each rival class."""
        return [self.steps * (1 + min(num_classes - 1, _MOST_RIVALS)) + 0.5] * self.restarts

    def adapted(self, num_classes: int) -> str | None:
        """All classes compete where they are few."""
        if num_classes - 1 > _MOST_RIVALS:
            return f"the {_MOST_RIVALS} likeliest of {num_classes - 1} other classes at each step"
        return None
