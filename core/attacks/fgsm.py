"""FGSM: one step of size eps along the sign of the gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from core.attacks.base import Attack
from core.gradients import ascent_gradient
from core.projections import project, steepest
from core.rng import Rng
from core.threat import ThreatModel


class FGSM(Attack):
    """Fast gradient sign method, Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572 (eq. in section 4).

    Under l2 the step is along the normalised gradient.
    """

    title: ClassVar[str] = "Fast gradient sign method: one full step"
    paper: ClassVar[str] = "https://arxiv.org/abs/1412.6572"

    name: Literal["fgsm"] = "fgsm"

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """One step; see the base class."""
        grad, _ = ascent_gradient(model, x, y)
        return project(x + threat.eps * steepest(grad, threat.norm), x, threat)

    def fb_per_image(self) -> int:
        """One."""
        return 1
