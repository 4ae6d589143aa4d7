"""DRA: the dynamically regulated adversary, an unbounded attack on the most influential pixels."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run, all_alike
from core.gradients import ascent_gradient
from core.projections import largest_to_one, per_image
from core.rng import Rng
from core.threat import ThreatModel
from core.values import Pixels


def dynamically_regulated(
    model: nn.Module, x: Tensor, y: Tensor, *, mean_change: float, p: float, steps: int
) -> Tensor:
    """Algorithm 1 of Hou et al. 2022, https://arxiv.org/abs/2204.13232. Call inside ``frozen``.

    Each step adds (mean_change / steps) * g / mean|g|, so the mean absolute change of an image is at most
    ``mean_change``; nothing is projected. Then the pixels whose last gradient is below the k-th largest,
    k = ceil(p * N), get their clean value back, and the image is clipped to the box.
    An image whose gradient is all zero takes no step.
    """
    count = x[0].numel()
    kept = math.ceil(p * count)
    if kept == 0:
        return x.clone()
    x_adv, magnitude = x, torch.zeros_like(x)
    for _ in range(steps):
        grad, _ = ascent_gradient(model, x_adv, y)
        direction = largest_to_one(grad)
        magnitude = direction.abs()
        mean = magnitude.flatten(1).mean(1)  # at least 1 / N where there is a gradient at all
        x_adv = x_adv + direction * per_image(mean_change / steps / torch.where(mean > 0, mean, 1.0))
    threshold = magnitude.flatten(1).kthvalue(count - kept + 1, dim=1).values
    return torch.where(magnitude < per_image(threshold), x, x_adv).clamp_(0, 1)


class DRA(Attack):
    """Dynamically regulated adversary, Hou et al. 2022, https://arxiv.org/abs/2204.13232.

    Soft-bounded: it ignores the threat model's eps, so its success says nothing about robustness in the ball.
    """

    title: ClassVar[str] = "Dynamically regulated adversary (unbounded)"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"
    bounded: ClassVar[bool] = False

    name: Literal["dra"] = "dra"
    mean_change: Pixels = Field(
        2 / 255,
        le=1,
        description='Mean absolute change of a pixel (the paper\'s epsilon); "2/255" or a number.',
    )
    p: float = Field(1 / 3, ge=0, le=1, description="Share of pixels that may change, by gradient magnitude.")
    steps: int = Field(5, ge=1, le=10_000, description="Gradient steps.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """See ``dynamically_regulated``."""
        x_adv = dynamically_regulated(model, x, y, mean_change=self.mean_change, p=self.p, steps=self.steps)
        return all_alike(x_adv, self.steps)

    def work(self, num_classes: int) -> list[float]:
        """One FB a step."""
        return [self.steps]
