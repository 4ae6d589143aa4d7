"""fmnist-cnn: three convolutions for 28 px grey images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from core.models.base import Architecture, Domain, ImageShape


class FMNISTNet(nn.Module):
    """Conv 32-64-128 (3x3), each with ReLU and 2x2 max-pooling, FC 128, FC classes."""

    def __init__(self, num_classes: int, image: ImageShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image.channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * (image.height // 8) * (image.width // 8), 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        # pooling first: max and ReLU commute, and ReLU then sees a quarter of the values
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(conv(x), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class FMNISTCNN(Architecture):
    """The small network of the Fashion-MNIST rows; Agarwal et al. 2021 say only "3 conv, ReLU"."""

    title: ClassVar[str] = "Three convolutions and two dense layers (241,546 parameters at 28x28x1, 10 classes)"
    domain: ClassVar[Domain] = "grey28"
    small: ClassVar[bool] = True

    name: Literal["fmnist-cnn"] = "fmnist-cnn"

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        return FMNISTNet(num_classes, image)
