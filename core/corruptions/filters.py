"""Linear filters and resampling in float64, which both sets were made in.

Rounding that differs with the batch size or the device stays near 1e-16 and does not survive the cast to grey levels.
Separable filters are a matrix for each side: exact at any border and for kernels wider than the image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# edge: a a a|a b c d|d d d;  symmetric: c b a|a b c d|d c b;  mirror: d c b|a b c d|c b a
Border = Literal["edge", "symmetric", "mirror"]


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows`` (H, h) applied along the height and ``columns`` (W, w) along the width: (..., h, w) -> (..., H, W)."""
    return rows.to(x.device) @ (x @ columns.to(x.device).T)


def convolution_matrix(size: int, weights: Tensor, border: Border) -> Tensor:
    """A correlation with ``weights`` (2 r + 1,) along a side of ``size`` pixels, as a matrix (size, size)."""
    radius = len(weights) // 2
    index = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)
    if border == "edge":
        index = index.clamp(0, size - 1)
    else:
        repeats = 1 if border == "symmetric" else 0  # whether the border shows the outermost pixel again
        period = 2 * (size - 1 + repeats)
        index = index.remainder(period)
        index = torch.minimum(index, period - repeats - index)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, index, weights.expand(size, -1))


def gaussian_weights(radius: int, sigma: float) -> Tensor:
    """(2 radius + 1,), sum 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    return weights / weights.sum()


def gaussian(x: Tensor, sigma: float, border: Border = "edge", truncate: float = 4) -> Tensor:
    """Gaussian filter of (..., h, w), cut at ``truncate`` sigma: skimage.filters.gaussian."""
    weights = gaussian_weights(int(truncate * sigma + 0.5), sigma)
    rows, columns = (convolution_matrix(side, weights, border) for side in x.shape[-2:])
    return separable(x, rows, columns)


def box(x: Tensor) -> Tensor:
    """Mean of 3 x 3 pixels of (..., h, w), border mirrored: cv2.blur."""
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    rows, columns = (convolution_matrix(side, weights, "mirror") for side in x.shape[-2:])
    return separable(x, rows, columns)


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlation of (n, c, h, w) with a kernel (2 r + 1, 2 r + 1), border mirrored: cv2.filter2D."""
    radius = len(kernel) // 2
    padded = F.pad(x, [radius] * 4, mode="reflect")
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(x.device).flip(0, 1), s=size)
    convolved: Tensor = torch.fft.irfft2(spectrum, s=size)
    # the product wraps around; it is whole from twice the radius on
    return convolved[..., 2 * radius :, 2 * radius :]


def disk(radius: float, alias_blur: float) -> Tensor:
    """The kernel of a lens out of focus, (2 r + 1, 2 r + 1) with r at least 8: a disk with a softened rim.

    From a radius of 8 on the disk touches the border, where softening mirrors it: these weigh 1.01, as published.
    """
    reach = max(8, int(radius))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (offsets[:, None] ** 2 + offsets**2 <= radius**2).to(torch.float64)
    weights = gaussian_weights(1 if radius <= 8 else 2, alias_blur)
    soften = convolution_matrix(len(offsets), weights, "mirror")
    return separable(inside / inside.sum(), soften, soften)


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of (n, c, h, w), enlarged by a factor of at least 1 to the same size, bilinearly.

    The outermost pixels' centres stay put, as in scipy.ndimage.zoom; what is too much is cut off evenly.
    """
    size = x.shape[2:]
    crop = [math.ceil(side / factor) for side in size]
    grown = [round(side * factor) for side in crop]
    inner = _middle(x, *crop)
    return _middle(F.interpolate(inner, size=grown, mode="bilinear", align_corners=True), *size)


def _middle(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[..., top : top + height, left : left + width]


def motion_blur(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """Smear (n, c, h, w) along a direction of each image's own, ``angle`` (n,) in degrees: ImageMagick's motion blur.

    Half a Gaussian, 2 radius + 1 taps from the pixel outwards, each at the nearest whole pixel; the border is the edge.
    """
    n, channels, height, width = x.shape
    taps = torch.arange(2 * radius + 1, dtype=torch.float64, device=x.device)
    weights = (-0.5 * (taps / sigma) ** 2).exp()
    weights /= weights.sum()
    radians = angle.to(torch.float64).deg2rad()[:, None]
    down, right = ((taps * part - 0.5).ceil().long() for part in (radians.sin(), radians.cos()))
    rows = (down[..., None] + torch.arange(height, device=x.device)).clamp_(0, height - 1)
    columns = (right[..., None] + torch.arange(width, device=x.device)).clamp_(0, width - 1)
    flat, out = x.flatten(2), torch.zeros_like(x).flatten(2)
    for tap, weight in enumerate(weights.tolist()):
        index = rows[:, tap, :, None] * width + columns[:, tap, None, :]
        out += weight * flat.gather(2, index.view(n, 1, -1).expand(-1, channels, -1))
    return out.view_as(x)
