"""small-cnn: four convolutions and three dense layers for 28 px grey images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from core.models.base import Architecture, Domain, ImageShape


class SmallNet(nn.Module):
    """Conv 32-32-pool-64-64-pool (3x3, no padding), FC 200, dropout, FC 200, FC classes."""

    def __init__(self, num_classes: int, image: ImageShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image.channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 32, 3)
        self.conv3 = nn.Conv2d(32, 64, 3)
        self.conv4 = nn.Conv2d(64, 64, 3)
        side = [((size - 4) // 2 - 4) // 2 for size in (image.height, image.width)]
        self.fc1 = nn.Linear(64 * side[0] * side[1], 200)
        self.fc2 = nn.Linear(200, 200)
        self.fc3 = nn.Linear(200, num_classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = F.relu(F.max_pool2d(self.conv2(F.relu(self.conv1(x))), 2))
        x = F.relu(F.max_pool2d(self.conv4(F.relu(self.conv3(x))), 2))
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class SmallCNN(Architecture):
    """The MNIST network of TRADES, Zhang et al. 2019, https://arxiv.org/abs/1901.08573."""

    title: ClassVar[str] = "Four convolutions and three dense layers (312,202 parameters at 28x28x1, 10 classes)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1901.08573"
    domain: ClassVar[Domain] = "grey28"
    small: ClassVar[bool] = True

    name: Literal["small-cnn"] = "small-cnn"

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        return SmallNet(num_classes, image)
