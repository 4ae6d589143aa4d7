"""Attacks by name. One file in this folder is one attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from core.attacks.base import Attack
from core.registry import Registry

ATTACKS: Registry[Attack] = Registry(__name__, Attack)

if TYPE_CHECKING:
    AnyAttack: TypeAlias = Attack
else:
    AnyAttack = ATTACKS.union()

__all__ = ["ATTACKS", "AnyAttack", "Attack"]
