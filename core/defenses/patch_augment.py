"""patch-augment: fine-tuning on images with one randomly modified central patch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, State
from core.models.base import Domain
from core.models.classifier import Classifier
from core.projections import per_image
from core.rng import Rng

OPERATIONS = ("rotation", "translation", "flip", "noise", "masking")


class PatchAugment(Defense):
    """Agarwal, Vatsa, Singh, AAAI 2021, "Role of Optimizer on Network Fine-tuning for Adversarial Robustness".

    Each batch is trained together with a copy in which one patch of side H/2 near the image centre went
    through one operation drawn at random. The choice of optimizer is the point of the paper; its robustness
    did not reproduce under attacks that use the whole eps, and the report will say so.
    """

    title: ClassVar[str] = "Fine-tuning with one modified patch near the centre"
    paper: ClassVar[str] = "Agarwal, Vatsa, Singh, AAAI 2021 (student abstract)"
    has_adversary: ClassVar[bool] = False

    name: Literal["patch-augment"] = "patch-augment"
    patches: int = Field(1, ge=1, le=4, description="Patches an image: one of side H/2, or more of side H/4.")
    max_rotation: float = Field(30, ge=0, le=180, description="Largest rotation, degrees.")
    max_noise: float = Field(0.1, ge=0, le=1, description="Largest standard deviation of the noise, pixels.")
    mask_probability: float = Field(0.5, ge=0, le=1, description="Chance of a pixel to be masked to 0.")

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Adam at a fixed rate for a few epochs; lr 1e-4 for VGG, 1e-3 for the small CNN."""
        lr = 1e-3 if small else 1e-4
        return Published(
            epochs=3 if domain == "grey28" else 2,
            optimizer="adam",
            lr={"adam": lr, "rmsprop": lr, "sgd": lr, "muon": lr},
            schedule={"name": "constant"},
            augment=(),
            select="last",
        )

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE over the 2B images."""
        x = torch.cat([batch.x, self.modify(batch.x, batch.rng.fork("patch"))])
        yield moment.cross_entropy(model(x), batch.y.repeat(2))

    def adversarial_fb(self) -> int:
        """2."""
        return 2

    def modify(self, x: Tensor, rng: Rng) -> Tensor:
        """Images (n, c, h, w) with each patch replaced by its modified self."""
        for patch in range(self.patches):
            x = self._modify_one(x, rng.fork(patch))
        return x

    def _modify_one(self, x: Tensor, rng: Rng) -> Tensor:
        height, width = x.shape[2:]
        side = min(height, width) // (2 if self.patches == 1 else 4)
        reach = min(height, width) // 8
        top = (height - side) // 2 + rng.fork("top").integers(-reach, reach)
        left = (width - side) // 2 + rng.fork("left").integers(-reach, reach)
        offsets = torch.arange(side, device=x.device)
        rows, columns = top[:, None] + offsets, left[:, None] + offsets
        images = torch.arange(len(x), device=x.device)
        index = (images[:, None, None], slice(None), rows[:, :, None], columns[:, None, :])
        modified = x.clone()
        # advanced indices around a slice put the channel last
        patch = x[index].permute(0, 3, 1, 2)
        modified[index] = self._operate(patch, rng).permute(0, 2, 3, 1)
        return modified

    def _operate(self, patch: Tensor, rng: Rng) -> Tensor:
        """One operation on each patch (n, c, w, w), drawn uniformly."""
        operation = rng.fork("operation").integers(0, len(OPERATIONS) - 1)
        chosen = {name: operation == index for index, name in enumerate(OPERATIONS)}
        moved = _move(patch, self._affine(chosen, patch.shape[-1], rng))
        noise = rng.fork("noise").normal(*patch.shape[1:])
        sigma = rng.fork("sigma").uniform(1).flatten() * self.max_noise
        noisy = (patch + noise * per_image(sigma)).clamp(0, 1)
        kept = rng.fork("mask").uniform(1, *patch.shape[2:]) >= self.mask_probability
        result = torch.where(per_image(chosen["noise"]), noisy, moved)
        return torch.where(per_image(chosen["masking"]), patch * kept, result)

    def _affine(self, chosen: dict[str, Tensor], side: int, rng: Rng) -> Tensor:
        """Inverse maps (n, 2, 3) in grid_sample's coordinates: rotation, shift by whole pixels, or flip."""

        def signed(label: str) -> Tensor:
            return rng.fork(label).uniform(1).flatten() * 2 - 1

        angle = torch.where(chosen["rotation"], signed("angle") * math.radians(self.max_rotation), 0.0)
        horizontal = rng.fork("axis").uniform(1).flatten() < 0.5
        flip_x = torch.where(chosen["flip"] & horizontal, -1.0, 1.0)
        flip_y = torch.where(chosen["flip"] & ~horizontal, -1.0, 1.0)
        shift = [
            torch.where(chosen["translation"], (signed(label) * side / 4).round() * 2 / side, 0.0)
            for label in ("shift-x", "shift-y")
        ]
        cos, sin = angle.cos(), angle.sin()
        rows = [torch.stack([cos * flip_x, -sin, shift[0]], 1), torch.stack([sin, cos * flip_y, shift[1]], 1)]
        return torch.stack(rows, 1)


def _move(patch: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(patch.shape), align_corners=False)
    return F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=False)
