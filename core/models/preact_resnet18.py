"""preact-resnet18: a residual network whose blocks normalise and activate before they convolve, for 32 px images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.base import Architecture, Domain, ImageShape


class PreActBlock(nn.Module):
    """Twice BatchNorm, ReLU and a 3x3 convolution; where the shape changes, a 1x1 convolution is the way around."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes = stride != 1 or channels != width
        # a Sequential of one: checkpoints in circulation say "shortcut.0"
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, h / stride, w / stride); a way around that is no identity starts after the ReLU."""
        out = F.relu(self.bn1(x))
        around = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        features: Tensor = out + around
        return features


class PreActNet(nn.Module):
    """A 3x3 stem, four stages of two blocks of 64 to 512 channels, BatchNorm, ReLU, mean over the image, dense."""

    def __init__(self, num_classes: int, image: ImageShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image.channels, 64, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, 1), PreActBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, 2), PreActBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, 2), PreActBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, 2), PreActBlock(512, 512, 1))
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = self.conv1(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        x = F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1)
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class PreActResNet18(Architecture):
    """He et al. 2016, https://arxiv.org/abs/1603.05027, in the form that the literature on CIFAR uses.

    With the BatchNorm before the mean that the paper has; some implementations leave it out (11,171,146 parameters).
    """

    title: ClassVar[str] = "Pre-activation ResNet-18 for 32 px images (11,172,170 parameters at 10 classes)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1603.05027"
    domain: ClassVar[Domain] = "cifar"

    name: Literal["preact-resnet18"] = "preact-resnet18"

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        if min(image.height, image.width) < 8:
            raise UnsupportedError(f"{self.name} halves its input three times; images of {image} are too small")
        return PreActNet(num_classes, image)
