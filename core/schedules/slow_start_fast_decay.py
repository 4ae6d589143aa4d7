"""Slow start, fast decay: the schedule of adversarial fine-tuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from core.schedules.base import Schedule


class SlowStartFastDecay(Schedule):
    """Jeddi et al. 2020, https://arxiv.org/abs/2012.13628: linear to the peak over the first half, then
    halved at every tenth of the run. With u = t * 10 / epochs: u / 5 up to 5, then 0.5 ** (u - 5).
    """

    title: ClassVar[str] = "Linear to the peak at half time, then halved at every tenth of the run"
    paper: ClassVar[str] = "https://arxiv.org/abs/2012.13628"

    name: Literal["slow-start-fast-decay"] = "slow-start-fast-decay"

    def factor(self, t: float, epochs: float) -> float:
        """See the class."""
        u = t * 10 / epochs
        return u / 5 if u <= 5 else float(0.5 ** (u - 5))
