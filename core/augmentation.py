"""Augmentation of training batches, and the views that let a crop and a flip be undone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from core.rng import Rng

Augmentation = Literal["crop", "flip", "resized-crop"]
_PADDING = 4


@dataclass(frozen=True)
class View:
    """Where each pixel of an augmented image lies on its canvas, the image padded with black on all sides.

    ``index``: int64 (n, h * w), positions in a flattened canvas (n, c, h + 2 * padding, w + 2 * padding).
    """

    index: Tensor
    padding: int

    @classmethod
    def drawn(cls, x: Tensor, operations: Sequence[Augmentation], rng: Rng) -> View:
        """A random corner of the canvas if the images are cropped, mirrored half of the time if they are flipped."""
        n, _, height, width = x.shape
        padding = canvas_padding(operations)
        rows = torch.arange(height, device=x.device).expand(n, -1)
        columns = torch.arange(width, device=x.device).expand(n, -1)
        if "flip" in operations:
            mirrored = rng.fork("flip").uniform(1) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if "crop" in operations:
            crop = rng.fork("crop")
            rows = rows + crop.fork("y").integers(0, 2 * padding)[:, None]
            columns = columns + crop.fork("x").integers(0, 2 * padding)[:, None]
        index = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
        return cls(index.flatten(1), padding)

    def look(self, canvas: Tensor, height: int) -> Tensor:
        """The images (n, c, h, w) that it shows of canvases (n, c, H, W)."""
        n, channels = canvas.shape[:2]
        seen = canvas.flatten(2).gather(2, self.index[:, None].expand(-1, channels, -1))
        return seen.view(n, channels, height, -1)

    def put(self, canvas: Tensor, x: Tensor) -> Tensor:
        """The canvases with the pixels of ``x`` written back to where they were taken from."""
        index = self.index[:, None].expand(-1, x.shape[1], -1)
        return canvas.flatten(2).scatter(2, index, x.flatten(2).to(canvas.dtype)).view_as(canvas)


def canvas_padding(operations: Sequence[Augmentation]) -> int:
    """How far a canvas reaches beyond its image."""
    return _PADDING if "crop" in operations else 0


def augment(x: Tensor, operations: Sequence[Augmentation], rng: Rng) -> tuple[Tensor, View | None]:
    """Augmented images, each by its own random stream, and their view; None if resizing cannot be undone.

    Resizing comes first; crop and flip are drawn independently, so their order does not matter.
    """
    resized = "resized-crop" in operations
    if resized:
        x = _resized_crop(x, rng.fork("resized-crop"))
    view = View.drawn(x, operations, rng)
    if "crop" in operations or "flip" in operations:
        x = view.look(F.pad(x, [view.padding] * 4), x.shape[2])
    return x, None if resized else view


def _resized_crop(x: Tensor, rng: Rng) -> Tensor:
    """A random part of 8% to 100% of the area and aspect 3/4 to 4/3, resized back, as is usual on ImageNet."""
    area = 0.08 + 0.92 * rng.fork("area").uniform(1).flatten()
    ratio = ((2 * rng.fork("ratio").uniform(1).flatten() - 1) * math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    shift_x = (2 * rng.fork("x").uniform(1).flatten() - 1) * (1 - width)
    shift_y = (2 * rng.fork("y").uniform(1).flatten() - 1) * (1 - height)
    zero = torch.zeros_like(area)
    affine = torch.stack([torch.stack([width, zero, shift_x], 1), torch.stack([zero, height, shift_y], 1)], 1)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
