"""I-FGSM: PGD without the random start."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.ascent import first_success
from core.attacks.base import Attack, Found, Run
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size


class IFGSM(Attack):
    """Basic iterative method, Kurakin et al. 2017, https://arxiv.org/abs/1607.02533 (eq. 2)."""

    title: ClassVar[str] = "Iterated FGSM from the clean image"
    paper: ClassVar[str] = "https://arxiv.org/abs/1607.02533"

    name: Literal["i-fgsm"] = "i-fgsm"
    steps: int = Field(10, ge=1, le=10_000, description="Gradient steps.")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """K steps from the clean image; see the base class."""
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        return first_success(model, x, x, y, threat, steps=self.steps, step_size=step_size)

    def work(self, num_classes: int) -> list[float]:
        """One FB a step."""
        return [self.steps]
