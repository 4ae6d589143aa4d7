"""PGD: projected gradient ascent from random starts."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.ascent import first_success
from core.attacks.base import Attack
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size


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

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Restarts of K steps each, on the images still standing; see the base class."""
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        result = x.clone()
        standing = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            clean, labels = x[standing], y[standing]
            start = uniform_in_ball(clean, threat, rng[standing].fork(restart))
            result[standing] = first_success(model, start, clean, labels, threat, steps=self.steps, step_size=step_size)
            if restart + 1 < self.restarts:
                standing = standing[model(result[standing]).argmax(1) == labels]
                if len(standing) == 0:
                    break
        return result

    def fb_per_image(self) -> int:
        """One a step and restart."""
        return self.steps * self.restarts
