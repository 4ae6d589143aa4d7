"""none: evaluates the checkpoint as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn

from core.defenses.base import Batch, Defense, Moment, Published
from core.models.base import Domain


class NoDefense(Defense):
    """No training: the report has only its "before" side."""

    title: ClassVar[str] = "Evaluate only"
    trains: ClassVar[bool] = False

    name: Literal["none"] = "none"

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Nothing is trained."""
        return Published(epochs=0, optimizer="", lr={}, schedule={}, augment=(), select="last")

    def losses(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Tensor]:
        """No loss."""
        return iter(())

    def fb_per_example(self, share: float) -> int:
        """Zero."""
        return 0
