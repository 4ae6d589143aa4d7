"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from core.optimizers.base import OptimizerSpec


class SGD(OptimizerSpec):
    """Stochastic gradient descent with heavy-ball momentum."""

    title: ClassVar[str] = "SGD with momentum"

    name: Literal["sgd"] = "sgd"
    lr: float = Field(0.01, gt=0, le=100, description="Peak learning rate of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See the base class."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
