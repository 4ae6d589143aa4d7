"""kl-pgd: gradient ascent on the divergence from the clean prediction, within the ball."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.gradients import slope
from core.inner_attacks.base import InnerAttack
from core.losses import divergence_ascent
from core.models.classifier import full_precision
from core.projections import ascent_step, project
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size

_NOISE = 0.001  # at the clean image the divergence is at its minimum, and its gradient zero


class KLPGD(InnerAttack):
    """The inner maximisation of TRADES, Zhang et al. 2019, eq. 5, https://arxiv.org/abs/1901.08573.

    It never sees the labels: it moves the prediction away from that on the clean image.
    """

    title: ClassVar[str] = "Projected gradient ascent on KL(p(x), p(x_adv)) from a small Gaussian start"
    paper: ClassVar[str] = "https://arxiv.org/abs/1901.08573"

    name: Literal["kl-pgd"] = "kl-pgd"
    steps: int = Field(10, ge=1, le=1000, description="Gradient steps for each training example (K).")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, *, strength: float = 1.0
    ) -> Tensor:
        """See the base class; ``y`` is not used."""
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        x_adv = project(x + _NOISE * rng.fork("start").normal(*x.shape[1:]), x, threat)
        with full_precision(model):  # bfloat16 would round so small a difference away
            clean = model(x).detach()
            grad = slope(model, x_adv, clean, divergence_ascent).grad
        for step in range(self.steps):
            if step > 0:
                grad = slope(model, x_adv, clean, divergence_ascent).grad
            x_adv = ascent_step(x_adv, grad, x, threat, step_size)
        return x_adv

    def fb_per_example(self) -> int:
        """K; the clean prediction is a forward pass only."""
        return self.steps
