"""mnist-cnn: two convolutions for 28 px grey images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from core.models.base import Architecture, Domain, ImageShape


class MNISTNet(nn.Module):
    """Conv 10-20 (5x5), each with 2x2 max-pooling and ReLU, FC 50, FC classes."""

    def __init__(self, num_classes: int, image: ImageShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image.channels, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        height, width = (((size - 4) // 2 - 4) // 2 for size in (image.height, image.width))
        self.fc1 = nn.Linear(20 * height * width, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        for conv in (self.conv1, self.conv2):
            x = F.relu(F.max_pool2d(conv(x), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


class MNISTCNN(Architecture):
    """The network "2 conv + 2 fc" of Hou et al. 2022."""

    title: ClassVar[str] = "Two convolutions and two dense layers (21,840 parameters at 28x28x1, 10 classes)"
    domain: ClassVar[Domain] = "grey28"
    small: ClassVar[bool] = True

    name: Literal["mnist-cnn"] = "mnist-cnn"

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        return MNISTNet(num_classes, image)
