"""Grey and colour images alike."""

from __future__ import annotations

import torch
from torch import Tensor

_LUMINANCE = (0.299, 0.587, 0.114)


def luminance(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, 1, h, w), weighted as by OpenCV (ITU-R BT.601); a grey image is its own."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(_LUMINANCE)[:, None, None]).sum(1, keepdim=True)


def paint(rgb: Tensor, x: Tensor) -> Tensor:
    """Colours (n, 3) as (n, c, 1, 1) for the images ``x``: their luminance if those are grey."""
    colours = rgb.to(x)[:, :, None, None]
    return colours if x.shape[1] == 3 else luminance(colours)


def paint_levels(red: float, green: float, blue: float, x: Tensor) -> Tensor:
    """One colour, given as levels 0..255, as (1, c, 1, 1)."""
    return paint(torch.tensor([[red, green, blue]], dtype=torch.float64) / 255, x)
