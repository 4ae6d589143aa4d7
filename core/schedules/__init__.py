"""Learning-rate schedules by name. One file in this folder is one schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from core.registry import Registry
from core.schedules.base import Schedule

SCHEDULES: Registry[Schedule] = Registry(__name__, Schedule)

if TYPE_CHECKING:
    AnySchedule: TypeAlias = Schedule
else:
    AnySchedule = SCHEDULES.union()

__all__ = ["SCHEDULES", "AnySchedule", "Schedule"]
