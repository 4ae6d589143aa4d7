"""The active test: a planted adversarial example that an attack must find.

Zimmermann, Brendel, Tramer, Carlini 2022, https://arxiv.org/abs/2206.13991. For one image, many points drawn from the
inside of its ball are class 0, and one point on the ball's edge is class 1. A new binary read-out on the model's own
features tells them apart, so an adversarial example exists for certain. An attack that does not find one is too weak
for this model, and its robust accuracy means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.attacks.base import Attack
from core.evaluate import Bench
from core.models.classifier import Classifier, frozen
from core.projections import norm_of, per_image, uniform_in_ball
from core.rng import Rng, derive_seed
from core.threat import ThreatModel

_INNER = 499  # points that are not adversarial
_INNER_RADIUS = 0.9  # of eps: drawn from a slightly smaller ball
_MARGIN = 0.05  # the boundary lies this far from the planted point, on the way to the best inner point
_RIDGE = 1e-3


@dataclass(frozen=True)
class Planted:
    """How many images could be given a planted example, and for how many of those the attack found one."""

    planted: int
    found: int


class _ReadOut(nn.Module):
    """The model's features, read out anew: logits (n, 2), the second positive past the threshold."""

    def __init__(self, features: nn.Module, weight: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.features, self.weight, self.threshold = features, weight, threshold

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.features(x) @ self.weight - self.threshold
        return torch.stack([-score, score], 1)


class _Features(nn.Module):
    """What enters the model's last linear layer, flattened; the logits of a model without one."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        linear = [module for module in model.net.modules() if isinstance(module, nn.Linear)]
        self._head = linear[-1] if linear else None
        self._entered: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._head is None:
            logits: Tensor = self.model(x)
            return logits.flatten(1)
        with self._head.register_forward_pre_hook(self._keep):
            logits = self.model(x)
        entered, self._entered = self._entered, None
        return logits.flatten(1) if entered is None or len(entered) != len(x) else entered.flatten(1)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._entered = inputs[0]


def plant(model: Classifier, bench: Bench, attack: Attack, threat: ThreatModel, *, count: int) -> Planted:
    """Plant one example for each of the first ``count`` images, and attack.

    An image whose features cannot tell the planted point apart from the inner ones is left out.
    """
    features = _Features(model)
    planted = found = 0
    with frozen(model), torch.no_grad():
        for row in range(min(count, len(bench.images))):
            x, _, ids = bench.images.batch(np.array([row]), bench.device)
            rng = Rng.for_images(derive_seed(bench.seed, "planted"), ids)
            read_out = _plant_one(features, x, threat, rng, bench.batch_size)
            if read_out is None:
                continue
            planted += 1
            y = torch.zeros(1, dtype=torch.int64, device=x.device)
            found += int(read_out(attack.perturb(read_out, x, y, threat, rng.fork("attack"))).argmax(1).item() == 1)
    return Planted(planted, found)


def _plant_one(features: nn.Module, x: Tensor, threat: ThreatModel, rng: Rng, batch_size: int) -> _ReadOut | None:
    inner_ball = ThreatModel(norm=threat.norm, eps=_INNER_RADIUS * threat.eps)
    edge = _on_the_edge(x, threat, rng.fork("edge"))
    parts = [features(torch.cat([x, edge]))]
    for first in range(0, _INNER, batch_size):
        draws = range(first, min(first + batch_size, _INNER))
        parts.append(features(torch.cat([uniform_in_ball(x, inner_ball, rng.fork(draw)) for draw in draws])))
    values = torch.cat(parts)
    f_edge, f_inner = values[1], torch.cat([values[:1], values[2:]])
    weight = _discriminant(f_inner.double(), f_edge.double()).to(f_inner.dtype)
    highest, score = (f_inner @ weight).max(), f_edge @ weight
    if score - highest <= 1e-4 * score.abs().clamp_min(1e-4):
        return None
    return _ReadOut(features, weight, score - _MARGIN * (score - highest))


def _discriminant(inner: Tensor, edge: Tensor) -> Tensor:
    """The direction that best tells ``edge`` (d,) from the points ``inner`` (n, d): inverse scatter times difference.

    (S'S / n + r I)^-1 v = (v - S' (n r I + S S')^-1 S v) / r: a system of n equations, however many features.
    """
    centre = inner.mean(0)
    spread, difference, n = inner - centre, edge - centre, len(inner)
    ridge = _RIDGE * spread.square().mean() + 1e-12
    gram = spread @ spread.T + n * ridge * torch.eye(n, device=inner.device, dtype=inner.dtype)
    weight: Tensor = (difference - spread.T @ torch.linalg.solve(gram, spread @ difference)) / ridge
    unit: Tensor = weight / weight.norm().clamp_min(1e-12)
    return unit


def _on_the_edge(x: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """A random corner for linf; for l2 and l1 a random point scaled to the sphere; then clipped to the box."""
    delta = uniform_in_ball(torch.full_like(x, 0.5), ThreatModel(norm=threat.norm, eps=min(threat.eps, 0.5)), rng) - 0.5
    if threat.norm == "linf":
        return (x + threat.eps * delta.sign()).clamp_(0, 1)
    return (x + delta * per_image(threat.eps / norm_of(delta, threat.norm).clamp_min(1e-12))).clamp_(0, 1)
