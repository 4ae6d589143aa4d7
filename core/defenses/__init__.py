"""Defenses by name. One file in this folder is one defense."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from core.defenses.base import Defense
from core.registry import Registry

DEFENSES: Registry[Defense] = Registry(__name__, Defense)

if TYPE_CHECKING:
    AnyDefense: TypeAlias = Defense
else:
    AnyDefense = DEFENSES.union()

__all__ = ["DEFENSES", "AnyDefense", "Defense"]
