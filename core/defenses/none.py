"""none: evaluates the checkpoint as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, State
from core.models.base import Domain
from core.models.classifier import Classifier


class NoDefense(Defense):
    """No training: the report has only its "before" side."""

    title: ClassVar[str] = "Evaluate only"
    trains: ClassVar[bool] = False
    has_adversary: ClassVar[bool] = False

    name: Literal["none"] = "none"

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Nothing is trained."""
        return Published(epochs=0, optimizer="", lr={}, schedule={}, augment=(), select="last")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """No loss."""
        return iter(())

    def adversarial_fb(self) -> int:
        """Zero."""
        return 0
