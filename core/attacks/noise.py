"""noise: points drawn uniformly from the ball. Whoever falls to them never was robust."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel


class Noise(Attack):
    """Uniform noise; no gradient is used, so no masking helps against it."""

    title: ClassVar[str] = "Uniform noise in the ball"
    uses_gradients: ClassVar[bool] = False

    name: Literal["noise"] = "noise"
    draws: int = Field(50, ge=1, le=100_000, description="Points drawn for each image.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """The first draw that is misclassified, or the last; see the base class."""
        result = x.clone()
        queries = torch.full((len(x),), self.draws, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        for draw in range(self.draws):
            noisy = uniform_in_ball(x[rows], threat, rng[rows].fork(draw))
            fooled = model(noisy).argmax(1) != y[rows]
            result[rows] = noisy
            queries[rows[fooled]] = draw + 1
            rows = rows[~fooled]
            if len(rows) == 0:
                break
        return Found(result, queries)

    def work(self, num_classes: int) -> list[float]:
        """A forward pass a draw."""
        return [self.draws / 2]
