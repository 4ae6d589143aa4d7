"""What every inner attack is."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from core.registry import Entry
from core.rng import Rng
from core.threat import ThreatModel


class InnerAttack(Entry):
    """Crafts the examples that a defense trains on."""

    @abstractmethod
    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, *, strength: float = 1.0
    ) -> Tensor:
        """Adversarial images for ``x`` (n, c, h, w) in [0, 1]. Call inside ``frozen``.

        Args:
            threat: the ball, its eps already scaled by the strength.
            strength: share of the full strength, in (0, 1], for attacks that do not stay in a ball.
        """

    @abstractmethod
    def fb_per_example(self) -> int:
        """Forward-backward passes for one image."""
