"""dra: clean examples replayed one to one with those of a dynamically regulated adversary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from core.attacks.dra import dynamically_regulated
from core.defenses.base import AUGMENT, Batch, Defense, Moment, Published
from core.models.base import Domain
from core.models.classifier import frozen
from core.values import Pixels


class DRATraining(Defense):
    """Hou et al. 2022, "Adversarial Fine-tune with Dynamically Regulated Adversary", https://arxiv.org/abs/2204.13232.

    Loss 0.5 * CE(x) + 0.5 * CE(x_dra). The adversary's mean change goes linearly from its first to its last
    value; the last part of the run trains on clean images only.
    """

    title: ClassVar[str] = "Clean and dynamically regulated adversarial examples, one to one"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"

    name: Literal["dra"] = "dra"
    mean_change: Pixels = Field(
        2 / 255, le=1, description="Mean absolute change of a pixel at the start (the paper's epsilon)."
    )
    final_mean_change: Annotated[Pixels, Field(le=1)] | None = Field(
        0.5 / 255, description="Mean absolute change when the adversarial part ends; null: as at the start."
    )
    adversarial_share: float = Field(
        5 / 6, gt=0, le=1, description="Share of the run with adversarial examples; the rest is clean only."
    )
    p: float = Field(1 / 3, ge=0, le=1, description="Share of pixels that may change, by gradient magnitude.")
    steps: int = Field(5, ge=1, le=1000, description="Gradient steps for each training example (T).")

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """60 epochs of SGD on CIFAR; on MNIST 50, with a stronger and constant adversary."""
        grey = domain == "grey28"
        grey_parameters = {
            "mean_change": 0.1,
            "final_mean_change": None,
            "adversarial_share": 1.0,
            "p": 2 / 3,
            "steps": 20,
        }
        return Published(
            epochs=50 if grey else 60,
            optimizer="sgd",
            lr={"adam": 1e-3, "rmsprop": 1e-3, "sgd": 0.01},
            # epochs 30 and 50 in both
            schedule={"name": "multi-step", "milestones": [0.6] if grey else [0.5, 5 / 6], "gamma": 0.1},
            augment=AUGMENT[domain],
            select="last",
            weight_decay=2e-4,
            parameters=grey_parameters if grey else {},
        )

    def mean_change_at(self, share: float) -> float:
        """The adversary's strength at this share of the run; 0 once it trains on clean images only."""
        if share >= self.adversarial_share:
            return 0.0
        progress = share / self.adversarial_share
        final = self.mean_change if self.final_mean_change is None else self.final_mean_change
        return self.mean_change + (final - self.mean_change) * progress

    def losses(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Tensor]:
        """0.5 * CE(x) + 0.5 * CE(x_dra); CE(x) in the clean part."""
        mean_change = self.mean_change_at(moment.epoch / moment.epochs)
        clean = F.cross_entropy(model(batch.x), batch.y)
        if mean_change == 0:
            yield clean
            return
        with frozen(model):
            x_adv = dynamically_regulated(model, batch.x, batch.y, mean_change=mean_change, p=self.p, steps=self.steps)
        yield 0.5 * clean + 0.5 * F.cross_entropy(model(x_adv), batch.y)

    def fb_per_example(self, share: float) -> int:
        """T + 2; 1 in the clean part."""
        return self.steps + 2 if self.mean_change_at(share) > 0 else 1
