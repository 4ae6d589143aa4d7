"""What every learning-rate schedule is: a shape between 0 and 1 over the run, times the optimizer's peak lr."""

from __future__ import annotations

from abc import abstractmethod

from core.registry import Entry


class Schedule(Entry):
    """A learning-rate schedule, applied at every optimizer step."""

    @abstractmethod
    def factor(self, t: float, epochs: float) -> float:
        """Share of the peak lr at time ``t``, in epochs since the start (0 <= t < epochs)."""
