"""The exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from core.data import ImageSet, some
from core.models.classifier import Classifier

_STATISTICS_IMAGES = 2000
_STATISTICS_BATCH = 250


class WeightAverage:
    """average <- d * average + (1 - d) * weights after each step, with d = min(decay, (1 + t) / (10 + t)).

    The smaller d of the first steps forgets the weights of the start. An average needs BatchNorm statistics of its own
    (Izmailov et al. 2018, arXiv 1803.05407, section 3.2); ``settle`` measures them.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self.model.cost = model.cost  # its passes are booked with the others
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: Classifier) -> None:
        """After an optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for average, value in zip(self.model.net.parameters(), model.net.parameters(), strict=True):
            average.lerp_(value, 1 - decay)

    @torch.no_grad()
    def settle(self, images: ImageSet) -> None:
        """Measure BatchNorm's statistics anew, as plain means over up to 2,000 training images."""
        norms = [module for module in self.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        norms = [module for module in norms if module.track_running_stats]
        if not norms:
            return
        momenta = [module.momentum for module in norms]
        before = [copy.deepcopy(module.state_dict()) for module in norms]
        rows = some(images, _STATISTICS_IMAGES, seed=0)
        self.model.eval()
        try:
            for module in norms:
                module.reset_running_stats()
                module.momentum = None  # a plain mean over all batches
                module.train()
            # pieces as equal as can be, since each counts the same
            for piece in np.array_split(rows, math.ceil(len(rows) / _STATISTICS_BATCH)):
                self.model(images.batch(piece, self.model.mean.device)[0])
        finally:
            for module, momentum, old in zip(norms, momenta, before, strict=True):
                module.momentum = momentum
                module.eval()
                if module.num_batches_tracked == 0:  # of an auxiliary head, which runs in training only
                    module.load_state_dict(old)

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics and the number of steps."""
        return {"steps": self.steps, "net": self.model.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.steps = state["steps"]
        self.model.net.load_state_dict(state["net"])
