"""What every schedule of strength is: a share of the training adversary's eps over the run."""

from __future__ import annotations

from abc import abstractmethod

from core.registry import Entry


class EpsSchedule(Entry):
    """How strong the adversary of training is; evaluation always uses the whole eps."""

    @abstractmethod
    def factor(self, share: float) -> float:
        """Strength between 0 (clean images only) and 1 at this share of the run (0 <= share < 1)."""
