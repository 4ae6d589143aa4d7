"""Contrast, elastic transform, pixelate, JPEG and saturate."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from core.corruptions.base import Corruption, levels, rounded
from core.corruptions.filters import gaussian
from core.rng import Rng

# the published code for 224 px multiplies its fractions by 244
_SLIP = 244 / 224


def contrast(x: Tensor, rng: Rng, factor: float) -> Tensor:
    """Shrink the differences from each channel's mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def saturate(x: Tensor, rng: Rng, factor: float, added: float) -> Tensor:
    """Scale and raise the saturation of HSV; one-channel images have none and stay as they are.

    Grey pixels of colour images have hue 0, which is red, so raising their saturation reddens them, as published.
    """
    if x.shape[1] == 1:
        return x
    value = x.amax(1, keepdim=True)
    drop = value - x
    chroma = drop.amax(1, keepdim=True)
    saturation = chroma / torch.where(value > 0, value, 1.0)
    changed = (saturation * factor + added).clamp(0, 1)
    # a channel lies below the value by saturation times value times a share that the hue fixes
    red = x.new_tensor([0, 1, 1])[:, None, None]
    share = torch.where(chroma > 0, drop / torch.where(chroma > 0, chroma, 1.0), red)
    return value * (1 - changed * share)


def elastic(x: Tensor, rng: Rng, amplitude: float, smoothness: float, shift: float) -> Tensor:
    """A random affine map, then displacements that vary smoothly; constants are fractions of the shorter side.

    The corners of a triangle move by up to ``shift``; displacements are uniform noise of ``amplitude``, blurred by
    ``smoothness``. Bilinear interpolation; the border is mirrored.
    """
    height, width = x.shape[2:]
    side = min(height, width)
    centre = x.new_tensor([width // 2, height // 2])
    arms = x.new_tensor([[1, 1], [1, -1], [-1, -1]]) * (side // 3)
    target = centre + arms
    moved = target + shift * side * (2 * rng.fork("affine").uniform(3, 2).double() - 1)
    # from each new place back to the old one
    back = torch.linalg.solve(F.pad(moved, [0, 1], value=1), target.expand_as(moved))
    across, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    places = torch.stack([across, down], -1).to(x)
    x = _sampled(x, places @ back[:, None, :2] + back[:, None, 2:], mirror=True)
    if amplitude == 0:
        return x
    noise = 2 * rng.fork("displacement").uniform(2, height, width).double() - 1
    displacement = amplitude * side * gaussian(noise, smoothness * side, "symmetric", truncate=3)
    return _sampled(x, places + displacement.permute(0, 2, 3, 1), mirror=False)


def _sampled(x: Tensor, places: Tensor, mirror: bool) -> Tensor:
    """The image at ``places`` (n, h, w, 2), pixels to the right and down.

    The border is mirrored, at the centres of the outermost pixels (``mirror``) or at their outer edges.
    """
    size = x.new_tensor([x.shape[3], x.shape[2]])
    grid = 2 * places / (size - 1) - 1 if mirror else (2 * places + 1) / size - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=mirror)


def pixelate(x: Tensor, rng: Rng, factor: float) -> Tensor:
    """Shrink by the factor and enlarge again, both with Pillow's box filter, which rounds after each side."""
    height, width = x.shape[2:]
    small = [int(height * factor), int(width * factor)]
    return _resized(_resized(x, *small), height, width)


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    wide = rounded(x @ _box_matrix(x.shape[3], width).to(x.device).T)
    return rounded(_box_matrix(x.shape[2], height).to(x.device) @ wide)


def _box_matrix(size: int, new_size: int) -> Tensor:
    """Means over the pixels whose centres are within half a new pixel, or half an old one if that is more."""
    scale = size / new_size
    centres = (torch.arange(new_size, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(size) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = ((distance > -0.5) & (distance <= 0.5)).double()
    return weights / weights.sum(1, keepdim=True)


def jpeg(x: Tensor, rng: Rng, quality: int) -> Tensor:
    """Encode at the quality and decode, on the CPU."""
    from torchvision.io import decode_jpeg, encode_jpeg  # heavy, and most jobs do not need it

    pixels = levels(x).to(torch.uint8).cpu()
    with warnings.catch_warnings():
        # torchvision 0.29 announces that its codecs will move to TorchCodec
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        decoded = torch.stack([decode_jpeg(encode_jpeg(image, quality)) for image in pixels])
    return decoded.to(x) / 255


DIGITAL = (
    Corruption(
        "contrast",
        "digital",
        contrast,
        cifar=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        imagenet=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    ),
    Corruption(
        "elastic-transform",
        "digital",
        elastic,
        cifar=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        imagenet=(
            (2 * _SLIP, 0.7 * _SLIP, 0.1 * _SLIP),
            (2 * _SLIP, 0.08 * _SLIP, 0.2 * _SLIP),
            (0.05 * _SLIP, 0.01 * _SLIP, 0.02 * _SLIP),
            (0.07 * _SLIP, 0.01 * _SLIP, 0.02 * _SLIP),
            (0.12 * _SLIP, 0.01 * _SLIP, 0.02 * _SLIP),
        ),
    ),
    Corruption(
        "pixelate",
        "digital",
        pixelate,
        cifar=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        imagenet=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    ),
    Corruption(
        "jpeg-compression",
        "digital",
        jpeg,
        cifar=((80,), (65,), (58,), (50,), (40,)),
        imagenet=((25,), (18,), (15,), (10,), (7,)),
    ),
    Corruption(
        "saturate",
        "digital",
        saturate,
        cifar=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
)
