"""RMSProp."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from core.optimizers.base import OptimizerSpec


class RMSProp(OptimizerSpec):
    """RMSProp, Tieleman & Hinton 2012, lecture 6.5; rho = 0.9 as in Agarwal et al. 2021."""

    title: ClassVar[str] = "RMSProp"

    name: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(5e-4, gt=0, le=100, description="Peak learning rate of the schedule.")
    rho: float = Field(0.9, ge=0, lt=1, description="Decay of the mean square.")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See the base class."""
        return torch.optim.RMSprop(parameters, lr=self.lr, alpha=self.rho, weight_decay=self.weight_decay)
