"""Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from core.optimizers.base import OptimizerSpec


class Adam(OptimizerSpec):
    """Adam, Kingma & Ba 2015, https://arxiv.org/abs/1412.6980."""

    title: ClassVar[str] = "Adam"
    paper: ClassVar[str] = "https://arxiv.org/abs/1412.6980"

    name: Literal["adam"] = "adam"
    lr: float = Field(5e-4, gt=0, le=100, description="Peak learning rate of the schedule.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See the base class."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay)
