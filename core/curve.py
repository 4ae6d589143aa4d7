"""Robust accuracy against eps, from one smallest adversarial norm for each image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from core.attacks.boundary import nearest_boundary
from core.data import FEW, some
from core.evaluate import Bench, verify
from core.models.classifier import Classifier, frozen
from core.projections import per_image
from core.report import Curve
from core.suites import Entry
from core.summary import robust_mask
from core.tally import Ledger
from core.threat import ThreatModel

_STEPS = 30  # of FAB towards the nearest class; its norm is then shortened by bisection
_BISECTIONS = 10
_POINTS = 21  # from 0 to twice the headline's eps


def accuracy_curve(
    model: Classifier, bench: Bench, ledger: Ledger, entries: tuple[Entry, ...], headline: ThreatModel
) -> Curve | None:
    """The curve under the headline's norm; None where there is nothing to draw (eps 0, a randomised model).

    Each image gets the smallest norm at which any example was found: by the suite, or by FAB, which seeks just
    that. A success at one norm is one at every larger eps, so a single search gives the whole curve. The suite's
    examples lie where its ball ends, so it lowers the curve from there on only.
    """
    if headline.eps == 0 or ledger.randomised or ledger.predictions is None:
        return None
    rows = some(bench.images, FEW, bench.seed)
    part = replace(bench, images=bench.images.choose(rows))
    correct = (ledger.predictions == bench.labels)[rows]
    smallest = _smallest_norms(model, part, correct, headline)
    left = robust_mask(ledger, bench, entries, headline)[rows]
    beyond = int((left & (smallest <= headline.eps)).sum())
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if entry.attack.bounded and entry.threat.norm == headline.norm:
            # a projected example may lie a rounding error outside its ball
            distance = np.minimum(tally.distance[rows].astype(np.float64), entry.threat.eps)
            smallest = np.minimum(smallest, np.where(tally.fooled[rows], distance, np.inf))
    radii = headline.eps * np.arange(_POINTS) / (_POINTS // 2)  # the middle one is eps itself
    return Curve(
        eps=tuple(float(eps) for eps in radii),
        accuracy=tuple(float((smallest > eps).mean()) for eps in radii),
        images=len(part.images),
        beyond_suite=beyond,
    )


def _smallest_norms(
    model: Classifier, bench: Bench, correct: np.ndarray, headline: ThreatModel
) -> npt.NDArray[np.float64]:
    smallest = np.where(correct, np.inf, -1.0)  # wrong already: below every eps
    with frozen(model), torch.no_grad():
        for rows, x, y, _ in bench.batches(np.flatnonzero(correct)):
            found = nearest_boundary(model, x, x, y, headline.norm, steps=_STEPS).x_adv
            for candidate in (found, _shorten(model, found, x, y)):  # the second may fail its second look
                proof = verify(model, candidate, x, y, headline.norm, None)
                fooled = proof.fooled.cpu().numpy()
                smallest[rows[fooled]] = np.minimum(smallest[rows[fooled]], proof.distance.cpu().numpy()[fooled])
    return smallest


def _shorten(model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The point nearest to ``x`` on the way to ``x_adv`` that is still misclassified, by bisection."""
    low, high = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        fooled = model(x + per_image(middle) * (x_adv - x)).argmax(1) != y
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return (x + per_image(high) * (x_adv - x)).clamp_(0, 1)
