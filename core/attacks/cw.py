"""cw: the l2 attack of Carlini and Wagner, adversarial examples of small norm by penalised descent."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.gradients import slope
from core.losses import margin
from core.projections import norm_of, per_image
from core.rng import Rng
from core.threat import Norm, ThreatModel

_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8  # Adam's own
_INSIDE = 0.999  # at the sides of the box tanh is flat, and a black pixel would not move


class CW(Attack):
    """Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644, section VI.A, with its loss f6.

    Minimises |x_adv - x|^2 + c * max(-margin, 0) over w, where x_adv = (tanh(w) + 1) / 2, by Adam; c is searched for
    each image. An image leaves once its norm is within eps.
    """

    title: ClassVar[str] = "Carlini and Wagner's l2 attack: penalised descent to small norms"
    paper: ClassVar[str] = "https://arxiv.org/abs/1608.04644"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    name: Literal["cw"] = "cw"
    steps: int = Field(100, ge=1, le=10_000, description="Adam steps for each c.")
    searches: int = Field(6, ge=1, le=50, description="Values of c that are tried, by bisection.")
    lr: float = Field(0.05, gt=0, le=10, description="Adam's learning rate.")
    initial_c: float = Field(1.0, gt=0, le=1e6, description="First weight of the misclassification.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """All values of c; see the base class."""
        result, smallest = x.clone(), x.new_full((len(x),), torch.inf)
        queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), torch.inf)
        c = x.new_full((len(x),), self.initial_c)
        for _ in range(self.searches):
            found, distance = self._descend(model, x[rows], y[rows], c[rows])
            queries[rows] += self.steps
            better = distance < smallest[rows]
            result[rows[better]], smallest[rows[better]] = found[better], distance[better]
            fooled = torch.isfinite(distance)
            high[rows], low[rows] = torch.where(fooled, c[rows], high[rows]), torch.where(fooled, low[rows], c[rows])
            c = torch.where(torch.isfinite(high), (low + high) / 2, 10 * c)
            rows = rows[smallest[rows] > threat.eps]
            if len(rows) == 0:
                break
        return Found(result, queries)

    def _descend(self, model: nn.Module, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest misclassified point on one descent and its norm; infinite if there was none."""
        best, nearest = x.clone(), x.new_full((len(x),), torch.inf)
        w = torch.atanh((2 * x - 1) * _INSIDE)
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, self.steps + 1):
            bend = torch.tanh(w)
            x_adv = (bend + 1) / 2
            grad, value, logits = slope(model, x_adv, y, margin)
            distance = norm_of(x_adv - x, "l2")
            better = (logits.argmax(1) != y) & (distance < nearest)
            best = torch.where(per_image(better), x_adv, best)
            nearest = torch.where(better, distance, nearest)
            push = per_image(c * (value <= 0))
            total = (2 * (x_adv - x) - push * grad) * (1 - bend**2) / 2
            mean = _BETA_1 * mean + (1 - _BETA_1) * total
            square = _BETA_2 * square + (1 - _BETA_2) * total**2
            scale = (square / (1 - _BETA_2**step)).sqrt() + _TINY
            w = w - self.lr * mean / (1 - _BETA_1**step) / scale
        return best, nearest

    def work(self, num_classes: int) -> list[float]:
        """One FB a step, for each c."""
        return [self.steps * self.searches]
