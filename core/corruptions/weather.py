"""Snow, frost, fog, brightness and spatter."""

from __future__ import annotations

import torch
from torch import Tensor

from core.corruptions.base import Corruption, rounded, truncated
from core.corruptions.colour import luminance, paint
from core.corruptions.filters import gaussian, motion_blur, zoomed
from core.corruptions.plasma import plasma
from core.corruptions.spatter import spatter
from core.projections import per_image
from core.rng import Rng

# The photographs that the published code draws from (it never picks its sixth; the second and third are one file):
# mean red, green and blue, spread within a crop, spread of the crops' means, all in grey levels
_PHOTOGRAPHS = (
    (78, 149, 166, 15, 11),
    (201, 205, 214, 19, 8),
    (201, 205, 214, 19, 8),
    (138, 153, 165, 26, 9),
    (112, 123, 135, 35, 14),
)


def snow(
    x: Tensor,
    rng: Rng,
    mean: float,
    spread: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Tensor:
    """Whiten the image, and add falling flakes twice, the second time turned by 180 degrees.

    Flakes are the peaks of enlarged noise, smeared within 45 degrees of the vertical.
    """
    noise = mean + spread * rng.fork("flakes").normal(1, *x.shape[2:]).double()
    noise = zoomed(noise, zoom)
    peaks = truncated(torch.where(noise < threshold, 0.0, noise))
    angle = 90 * rng.fork("angle").uniform(1).flatten() - 135
    flakes = rounded(motion_blur(peaks, radius, sigma, angle))
    whitened = torch.maximum(x, 1.5 * luminance(x) + 0.5)
    return keep * x + (1 - keep) * whitened + flakes + flakes.flip(2, 3)


def frost(x: Tensor, rng: Rng, keep: float, strength: float) -> Tensor:
    """Mix the image with ice on a window.

    The published sets mix in crops of photographs, which are not shipped here. The ice is generated with the mean
    colour and the spread of one of them, drawn for each image, so accuracy under frost can be compared between models
    but not exactly with published numbers.
    """
    photograph = rng.fork("photograph").integers(0, len(_PHOTOGRAPHS) - 1)
    red, green, blue, within, between = torch.tensor(_PHOTOGRAPHS, device=x.device).double()[photograph].T / 255
    lightness = per_image(between) * rng.fork("lightness").normal(1, 1, 1)
    ice = paint(torch.stack([red, green, blue], 1), x) + lightness + per_image(within) * _crystals(x, rng)
    return keep * x + strength * ice.clamp_(0, 1)


def _crystals(x: Tensor, rng: Rng) -> Tensor:
    """Needles in five directions on a cloudy ground, (n, 1, h, w) with mean 0 and spread 1 in each image.

    Their size goes with the image's, so that neighbouring pixels differ about as much as in the photographs.
    """
    height, width = x.shape[2:]
    side = min(height, width)
    length = max(1, round(side / 16))
    margin = 2 * length  # the smear repeats the border's pixels, which would show
    needles = []
    for direction in range(5):
        stream = rng.fork(f"needles-{direction}")
        angle = 360 * stream.fork("angle").uniform(1).flatten()
        seeds = gaussian(stream.normal(1, height + 2 * margin, width + 2 * margin).double(), side / 320)
        needles.append(motion_blur(seeds, length, 0.6 * length, angle)[..., margin:-margin, margin:-margin])
    cloud = plasma(rng.fork("cloud"), height, width, 2.0)
    return _standardised(_standardised(torch.cat(needles, 1).amax(1, keepdim=True)) + 0.7 * _standardised(cloud))


def _standardised(x: Tensor) -> Tensor:
    mean, spread = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
    return (x - mean) / spread


def fog(x: Tensor, rng: Rng, thickness: float, decay: float) -> Tensor:
    """Add a plasma fractal and scale back to the image's own maximum."""
    brightest = x.amax((1, 2, 3), keepdim=True)
    height, width = x.shape[2:]
    foggy = x + thickness * plasma(rng, height, width, decay)
    return foggy * brightest / (brightest + thickness)


def brightness(x: Tensor, rng: Rng, added: float) -> Tensor:
    """Add to the value of HSV, which is the largest channel; a grey image is its own value.

    With hue and saturation fixed all channels grow in proportion, and black becomes grey.
    """
    value = x.amax(1, keepdim=True)
    brighter = (value + added).clamp_max(1)
    return torch.where(value > 0, x * (brighter / torch.where(value > 0, value, 1.0)), brighter)


WEATHER = (
    Corruption(
        "snow",
        "weather",
        snow,
        cifar=(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        imagenet=(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    Corruption(
        "frost",
        "weather",
        frost,
        cifar=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        imagenet=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    Corruption(
        "fog",
        "weather",
        fog,
        cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    Corruption(
        "brightness",
        "weather",
        brightness,
        cifar=((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        imagenet=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    ),
    Corruption(
        "spatter",
        "weather",
        spatter,
        cifar=(
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        imagenet=(
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
)
