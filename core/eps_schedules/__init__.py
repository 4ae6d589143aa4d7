"""Schedules of the adversary's strength by name. One file in this folder is one schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from core.eps_schedules.base import EpsSchedule
from core.registry import Registry

EPS_SCHEDULES: Registry[EpsSchedule] = Registry(__name__, EpsSchedule)

if TYPE_CHECKING:
    AnyEpsSchedule: TypeAlias = EpsSchedule
else:
    AnyEpsSchedule = EPS_SCHEDULES.union()

__all__ = ["EPS_SCHEDULES", "AnyEpsSchedule", "EpsSchedule"]
