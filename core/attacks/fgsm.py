"""FGSM: one step of size eps along the sign of the gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run, all_alike
from core.gradients import ascent_gradient
from core.projections import best_linear
from core.rng import Rng
from core.threat import ThreatModel


class FGSM(Attack):
    """Fast gradient sign method, Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572 (eq. in section 4).

    In other norms too it is the step that gains most on the linearised loss: along the gradient under l2, on the
    largest coordinates under l1.
    """

    title: ClassVar[str] = "Fast gradient sign method: one full step"
    paper: ClassVar[str] = "https://arxiv.org/abs/1412.6572"

    name: Literal["fgsm"] = "fgsm"

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One step; see the base class."""
        grad, _ = ascent_gradient(model, x, y)
        return all_alike(best_linear(x, grad, threat), 1)

    def work(self, num_classes: int) -> list[float]:
        """One FB."""
        return [1]
