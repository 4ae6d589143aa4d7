"""What it means to meet a goal, and which of two models comes nearer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.models.classifier import Classifier
from core.report import EpochCurve
from core.selection import Judge


@dataclass(frozen=True)
class Target:
    """Least accuracies: ``robust`` of the goal, ``clean`` that of the uploaded model less the drop allowed."""

    robust: float
    clean: float

    def violation(self, clean: float, robust: float) -> float:
        """How much of both is missing, added up; 0 where the goal is met."""
        return max(0.0, self.robust - robust) + max(0.0, self.clean - clean)


Measure = Callable[[Classifier], tuple[float, float]]
"""Clean and robust accuracy of a model on the held-out images, under the search's own attack."""


class GoalJudge(Judge):
    """The epoch nearest to the goal ships; the winner's training may end with the first that meets it.

    Args:
        measure: asked where the weaker attack of the curve leaves the goal met; None: training runs to its end.
    """

    def __init__(self, target: Target, measure: Measure | None = None) -> None:
        super().__init__("robust")
        self._target, self._measure = target, measure

    def better(self, candidate: EpochCurve, best: EpochCurve | None) -> bool:
        """The smaller violation; of equals as usual, by robust accuracy first."""
        if best is None:
            return True
        ours, theirs = self._missing(candidate), self._missing(best)
        return ours < theirs or (ours == theirs and super().better(candidate, best))

    def enough(self, model: Classifier, accuracies: Mapping[str, float]) -> bool:
        """Whether this epoch meets the goal."""
        if self._measure is None:
            return False
        curve = (accuracies["held_out_clean"], accuracies["held_out_robust"])
        return self._target.violation(*curve) == 0 and self._target.violation(*self._measure(model)) == 0

    def _missing(self, curve: EpochCurve) -> float:
        return self._target.violation(curve.held_out_clean, curve.held_out_robust)
