"""wrn-28-10, wrn-34-10: wide residual networks, shallow and ten times as wide, for 32 px images.

The rows of the papers' tables that say "32x10" mean five residual units a stage, as Madry et al. 2018 have them: they
are run as wrn-34-10.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.base import Architecture, Domain, ImageShape

_WIDEN = 10
_UNITS = {"wrn-28-10": 4, "wrn-34-10": 5}  # a stage; the depth in the name is 6 * units + 4


class WideBlock(nn.Module):
    """Twice BatchNorm, ReLU and a 3x3 convolution, with dropout before the second convolution."""

    def __init__(self, channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # this and other names are those of the checkpoints in circulation
        self.convShortcut = None if channels == width else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, h / stride, w / stride); a way around that is no identity starts after the ReLU."""
        out = F.relu(self.bn1(x))
        around = x if self.convShortcut is None else self.convShortcut(out)
        out = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(out)))))
        features: Tensor = out + around
        return features


def _stage(channels: int, width: int, *, units: int, stride: int, dropout: float) -> nn.Module:
    first = WideBlock(channels, width, stride, dropout)
    others = [WideBlock(width, width, 1, dropout) for _ in range(units - 1)]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *others)))


class WideNet(nn.Module):
    """A 3x3 stem, three stages of 160, 320 and 640 channels, BatchNorm, ReLU, mean over the image, dense."""

    def __init__(self, num_classes: int, image: ImageShape, *, units: int, dropout: float, unused_block: bool) -> None:
        super().__init__()
        widths = [16 * _WIDEN, 32 * _WIDEN, 64 * _WIDEN]
        self.conv1 = nn.Conv2d(image.channels, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, widths[0], units=units, stride=1, dropout=dropout)
        if unused_block:
            self.sub_block1 = _stage(16, widths[0], units=units, stride=1, dropout=dropout)
        self.block2 = _stage(widths[0], widths[1], units=units, stride=2, dropout=dropout)
        self.block3 = _stage(widths[1], widths[2], units=units, stride=2, dropout=dropout)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.bn1(x)), 1)
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class WideResNet(Architecture):
    """Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146."""

    title: ClassVar[str] = "Wide ResNet for 32 px images (36,479,194 and 46,160,474 parameters at 10 classes)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1605.07146"
    domain: ClassVar[Domain] = "cifar"

    name: Literal["wrn-28-10", "wrn-34-10"]
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of features dropped between a block's convolutions while training."
    )

    unused_block: bool = Field(
        False, description="Also carry sub_block1, which checkpoints made by TRADES' code have and no pass uses."
    )

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        if min(image.height, image.width) < 4:
            raise UnsupportedError(f"{self.name} halves its input twice; images of {image} are too small")
        units = _UNITS[self.name]
        return WideNet(num_classes, image, units=units, dropout=self.dropout, unused_block=self.unused_block)
