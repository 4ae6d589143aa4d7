"""Gaussian, shot, impulse and speckle noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.corruptions.base import Corruption, levels
from core.rng import Rng


def gaussian_noise(x: Tensor, rng: Rng, scale: float) -> Tensor:
    """Add normal noise of standard deviation ``scale``."""
    return x + scale * rng.normal(*x.shape[1:])


def speckle_noise(x: Tensor, rng: Rng, scale: float) -> Tensor:
    """Add normal noise of standard deviation ``scale`` times the pixel."""
    return x + x * (scale * rng.normal(*x.shape[1:]))


def impulse_noise(x: Tensor, rng: Rng, amount: float) -> Tensor:
    """Set a share ``amount`` of all values, each channel by itself, to 0 or 1 with even chances."""
    u = rng.uniform(*x.shape[1:])
    return torch.where(u < amount / 2, 0.0, torch.where(u < amount, 1.0, x))


def shot_noise(x: Tensor, rng: Rng, photons: float) -> Tensor:
    """Poisson noise: a white pixel counts ``photons`` on average.

    The draws invert the distribution function, which is tabulated for the 256 grey levels.
    """
    # 12 sigma and 20 more: beyond it lies less than one step, 2^-24, of a uniform draw
    counts = torch.arange(int(photons + 12 * math.sqrt(photons)) + 20, dtype=torch.float64, device=x.device)
    rates = torch.arange(256, dtype=torch.float64, device=x.device)[:, None] * (photons / 255)
    probability = (torch.xlogy(counts, rates) - rates - torch.lgamma(counts + 1)).exp()
    table = probability.cumsum(1)
    table[:, -1] = 1
    # rows one above the other are one sorted list, and a row's number plus a draw is a place in that row
    ascending = (table.clamp_max(1) + torch.arange(256, device=x.device)[:, None]).flatten()
    row = levels(x)
    draws = (row + rng.uniform(*x.shape[1:]).double()).contiguous()
    place = torch.searchsorted(ascending, draws, right=True)
    return (place - row * len(counts)).double() / photons


NOISE = (
    Corruption(
        "gaussian-noise",
        "noise",
        gaussian_noise,
        cifar=((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        imagenet=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    ),
    Corruption(
        "shot-noise",
        "noise",
        shot_noise,
        cifar=((500,), (250,), (100,), (75,), (50,)),
        imagenet=((60,), (25,), (12,), (5,), (3,)),
    ),
    Corruption(
        "impulse-noise",
        "noise",
        impulse_noise,
        cifar=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        imagenet=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    ),
    Corruption(
        "speckle-noise",
        "noise",
        speckle_noise,
        cifar=((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)),
        imagenet=((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    ),
)
