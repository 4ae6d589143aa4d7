"""Which epoch ships, and when training ends early. Only held-out training images decide; the test set never does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.models.classifier import Classifier
from core.report import EpochCurve

_FELL_TO = 0.5  # of the best held-out robust accuracy so far
_WAS_AT_LEAST = 0.1
_FGSM_ABOVE = 0.2  # accuracy under one step, above that under ten
_IMAGES = 10  # that each of the two differences is made of at least: of very few images, some fall by chance


def better(candidate: EpochCurve, best: EpochCurve | None, select: str) -> bool:
    """Whether ``candidate`` replaces the best epoch so far.

    ``last``: always. ``robust``: a higher held-out robust accuracy, then a higher clean one, then the later.
    """
    if best is None or select == "last":
        return True
    return (candidate.held_out_robust, candidate.held_out_clean) >= (
        best.held_out_robust,
        best.held_out_clean,
    )


@dataclass
class Judge:
    """What the loop asks after each epoch; this one goes by ``training.select``."""

    select: str

    def better(self, candidate: EpochCurve, best: EpochCurve | None) -> bool:
        """Whether ``candidate`` replaces the best epoch so far."""
        return better(candidate, best, self.select)

    def enough(self, model: Classifier, accuracies: Mapping[str, float]) -> bool:
        """Whether training may end here with ``model``, whose accuracies these are. May raise Stopped."""
        return False


def collapsed(candidate: EpochCurve, earlier: Sequence[EpochCurve], *, held_out: int) -> bool:
    """Catastrophic overfitting, Wong et al. 2020, https://arxiv.org/abs/2001.03994, section 5.2.

    Accuracy under PGD-10 fell to less than half of what it was, while one step of FGSM finds much less than ten steps
    do, and the adversary of training is no weaker than it was at the best: a schedule that ends on clean images is
    meant to lose robustness. ``held_out``: how many images the accuracies are of.
    """
    best = max(earlier, key=lambda curve: curve.held_out_robust, default=None)
    if best is None or best.held_out_robust < _WAS_AT_LEAST or candidate.strength < best.strength:
        return False
    fell = best.held_out_robust - candidate.held_out_robust
    gap = candidate.held_out_fgsm - candidate.held_out_robust
    beyond_chance = min(fell, gap) * held_out >= _IMAGES
    return beyond_chance and candidate.held_out_robust < _FELL_TO * best.held_out_robust and gap > _FGSM_ABOVE


def out_of_patience(curves: Sequence[EpochCurve], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs brought no held-out robust accuracy above the best before them.

    Epochs count from the one in which the adversary was strongest: before, robustness cannot be expected.
    """
    strongest = max((curve.strength for curve in curves), default=0.0)
    first = next((i for i, curve in enumerate(curves) if curve.strength == strongest), 0)
    curves = curves[first:]
    if patience is None or len(curves) <= patience:
        return False
    before, since = curves[:-patience], curves[-patience:]
    return max(c.held_out_robust for c in since) <= max(c.held_out_robust for c in before)
