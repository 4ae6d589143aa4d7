"""pgd: gradient ascent on cross-entropy, within the ball."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.ascent import ascend
from core.inner_attacks.base import InnerAttack
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size


class InnerPGD(InnerAttack):
    """Madry et al. 2018, eq. 2.1, https://arxiv.org/abs/1706.06083: the last iterate from a uniform start."""

    title: ClassVar[str] = "Projected gradient ascent on cross-entropy from a random start"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.06083"

    name: Literal["pgd"] = "pgd"
    steps: int = Field(10, ge=1, le=1000, description="Gradient steps for each training example (K).")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, *, strength: float = 1.0
    ) -> Tensor:
        """See the base class."""
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        start = uniform_in_ball(x, threat, rng.fork("start"))
        return ascend(model, start, x, y, threat, steps=self.steps, step_size=step_size)

    def fb_per_example(self) -> int:
        """K."""
        return self.steps
