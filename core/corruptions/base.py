"""What a corruption is, and the two published sets of constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Constants = tuple[float, ...]
Group = Literal["noise", "blur", "weather", "digital"]

# CIFAR-10-C was made at 32 px and ImageNet-C at 224 px: an image belongs to the set that is nearer by ratio
_FIRST_IMAGENET_SIDE = 112
# of a grey level: what must be a whole level, such as the blur of a constant, stays one in spite of rounding
_SLACK = 1e-6


@dataclass(frozen=True)
class Corruption:
    """One corruption of Hendrycks and Dietterich (ICLR 2019).

    ``apply(x, rng, *constants)`` takes images (n, c, h, w), float64 in [0, 1] and on whole grey levels, and returns
    as many of the same shape, not yet clipped. ``cifar`` and ``imagenet`` hold the constants of severities 1 to 5.
    """

    name: str
    group: Group
    apply: Callable[..., Tensor]
    cifar: tuple[Constants, ...]
    imagenet: tuple[Constants, ...]

    def constants(self, side: int, severity: int) -> Constants:
        """Those of ImageNet-C if the shorter ``side`` has 112 pixels or more, else those of CIFAR-10-C."""
        table = self.imagenet if side >= _FIRST_IMAGENET_SIDE else self.cifar
        return table[severity - 1]


def truncated(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round down to grey levels, multiples of 1/255: the published sets cast to uint8."""
    return x.clamp(0, 1).mul_(255).add_(_SLACK).floor_().div_(255)


def rounded(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the nearest grey level, half up, as image libraries do."""
    return x.clamp(0, 1).mul_(255).add_(0.5 + _SLACK).floor_().div_(255)


def levels(x: Tensor) -> Tensor:
    """Grey levels 0..255, int64, of images on whole grey levels."""
    return (x * 255).round().to(torch.int64)
