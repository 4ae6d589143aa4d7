"""What every defense is: a way to fine-tune, as losses that the one training loop minimises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from core.models.base import Domain
from core.registry import Entry
from core.rng import Rng
from core.threat import ThreatModel

Augmentation = Literal["crop", "flip", "resized-crop"]

AUGMENT: Mapping[Domain, tuple[Augmentation, ...]] = {
    "grey28": (),
    "cifar": ("crop", "flip"),
    "imagenet": ("resized-crop", "flip"),
    "custom": (),
}
"""What the literature uses on each kind of image."""


@dataclass(frozen=True)
class Batch:
    """One batch as the loop hands it over: ``x`` (n, c, h, w) in [0, 1], augmented; ``y`` int64 (n,)."""

    x: Tensor
    y: Tensor
    rng: Rng


@dataclass(frozen=True)
class Moment:
    """Where training stands: ``epoch`` is continuous, 0 <= epoch < epochs."""

    epoch: float
    epochs: int
    threat: ThreatModel


@dataclass(frozen=True)
class Published:
    """A defense's published training set-up; what a spec leaves out is taken from here."""

    epochs: int
    optimizer: str
    lr: Mapping[str, float]
    schedule: Mapping[str, Any]
    augment: tuple[Augmentation, ...]
    select: Literal["robust", "last"]
    batch_size: int = 128
    weight_decay: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Defense(Entry):
    """A way to fine-tune; ``trains`` is False for the one that only evaluates."""

    trains: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """The set-up of the paper for this kind of images; ``small`` networks take larger learning rates."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Tensor]:
        """Yield one scalar loss for each optimizer step to take on this batch.

        The model is in train mode; the loop does zero_grad, backward and step between the yields.
        """

    @abstractmethod
    def fb_per_example(self, share: float) -> int:
        """Forward-backward passes on one training example in the epoch at this share of the run."""
