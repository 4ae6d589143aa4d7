"""Optimizers by name. One file in this folder is one optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from core.optimizers.base import OptimizerSpec
from core.registry import Registry

OPTIMIZERS: Registry[OptimizerSpec] = Registry(__name__, OptimizerSpec)

if TYPE_CHECKING:
    AnyOptimizer: TypeAlias = OptimizerSpec
else:
    AnyOptimizer = OPTIMIZERS.union()

__all__ = ["OPTIMIZERS", "AnyOptimizer", "OptimizerSpec"]
