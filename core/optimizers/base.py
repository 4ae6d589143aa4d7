"""What every optimizer is: hyper-parameters that build a torch optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import nn

from core.registry import Entry


class OptimizerSpec(Entry):
    """An optimizer; ``lr`` is the peak of the schedule."""

    lr: float = Field(gt=0, le=100, description="Peak learning rate of the schedule.")
    weight_decay: float = Field(0, ge=0, le=1, description="L2 penalty on the weights.")

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer over ``parameters``."""
