"""The common corruptions of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261).

Constants and the order of operations are the published ones; the random numbers are each image's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.corruptions.base import Corruption, rounded, truncated
from core.corruptions.blur import BLUR
from core.corruptions.digital import DIGITAL
from core.corruptions.noise import NOISE
from core.corruptions.weather import WEATHER
from core.rng import Rng

MAIN = (
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic-transform",
    "pixelate",
    "jpeg-compression",
)
EXTRA = ("speckle-noise", "gaussian-blur", "spatter", "saturate")
# Hou et al. 2022, Table VII
HOU = ("snow", "frost", "zoom-blur", "motion-blur", "jpeg-compression", "gaussian-noise")

_BY_NAME = {corruption.name: corruption for corruption in (*NOISE, *BLUR, *WEATHER, *DIGITAL)}
CORRUPTIONS: dict[str, Corruption] = {name: _BY_NAME[name] for name in MAIN + EXTRA}

SEVERITIES = (1, 2, 3, 4, 5)

__all__ = ["CORRUPTIONS", "EXTRA", "HOU", "MAIN", "SEVERITIES", "Corruption", "corrupt"]


def corrupt(name: str, x: Tensor, severity: int, rng: Rng) -> Tensor:
    """Corrupt images (n, c, h, w) in [0, 1], grey or colour, at a severity of 1 to 5; ``rng`` has a stream an image.

    Images are read as 8-bit ones, rounded to the nearest 1/255. The result is float32 in [0, 1] of the same shape,
    rounded down to multiples of 1/255: the published sets truncate so. From 112 px on the shorter side the constants
    are those of ImageNet-C, below those of CIFAR-10-C.

    Raises: ValueError if the name, the severity or the shape is none of these.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption is named {name!r}; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is not one of 1 to 5")
    if x.ndim != 4 or x.shape[1] not in (1, 3) or len(x) != len(rng):
        raise ValueError(f"expected grey or colour images (n, c, h, w), one for each stream, got {tuple(x.shape)}")
    corruption = CORRUPTIONS[name]
    with torch.no_grad():
        constants = corruption.constants(min(x.shape[2:]), severity)
        changed = corruption.apply(rounded(x.double()), rng.fork(f"{name}-{severity}"), *constants)
        return truncated(changed).to(torch.float32)
