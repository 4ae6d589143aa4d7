"""PGD: projected gradient ascent from random starts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.ascent import first_success
from core.attacks.base import Attack, Found, Run
from core.losses import Loss, cross_entropy_margin, margin
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size

_LOSSES: dict[str, Loss] = {"ce": cross_entropy_margin, "margin": margin}


class PGD(Attack):
    """Projected gradient descent on the negative loss, Madry et al. 2018, https://arxiv.org/abs/1706.06083.

    Every restart is tried on the images that no earlier one fooled; the first success of each image is kept.
    """

    title: ClassVar[str] = "Projected gradient descent with random starts"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.06083"

    name: Literal["pgd"] = "pgd"
    steps: int = Field(20, ge=1, le=10_000, description="Gradient steps in each restart.")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')
    restarts: int = Field(1, ge=1, le=1000, description="Random starts; an image counts as fooled if one succeeds.")
    loss: Literal["ce", "margin"] = Field(
        "ce", description='"ce", cross-entropy, or "margin", the largest other logit minus the true one.'
    )

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """K steps from one random start; see the base class."""
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        start = uniform_in_ball(x, threat, rng)
        loss = _LOSSES[self.loss]
        return first_success(model, start, x, y, threat, steps=self.steps, step_size=step_size, loss=loss)

    def work(self, num_classes: int) -> list[float]:
        """One FB a step, in every restart."""
        return [self.steps] * self.restarts
