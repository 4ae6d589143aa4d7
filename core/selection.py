"""Which epoch ships."""

from __future__ import annotations

from core.report import EpochCurve


def better(candidate: EpochCurve, best: EpochCurve | None, select: str) -> bool:
    """Whether ``candidate`` replaces the best epoch so far.

    ``last``: always. ``robust``: a higher held-out robust accuracy, then a higher clean one, then the later.
    Only held-out training images are looked at; the test set never chooses.
    """
    if best is None or select == "last":
        return True
    return (candidate.held_out_robust, candidate.held_out_clean) >= (
        best.held_out_robust,
        best.held_out_clean,
    )
