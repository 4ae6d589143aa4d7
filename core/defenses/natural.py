"""natural: standard training on clean images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, State, fine_tuning
from core.models.base import Domain
from core.models.classifier import Classifier


class Natural(Defense):
    """No adversary: the pretraining that every fine-tuning starts from, and the control that it is compared with."""

    title: ClassVar[str] = "Standard training on clean images, no defense"
    has_adversary: ClassVar[bool] = False

    name: Literal["natural"] = "natural"

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Fine-tuning as the defenses do it; the last epoch ships, since there is no robustness to choose by."""
        return replace(fine_tuning(domain, small=small), select="last")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x)."""
        yield moment.cross_entropy(model(batch.x), batch.y)

    def adversarial_fb(self) -> int:
        """1."""
        return 1
