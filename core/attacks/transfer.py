"""Transfer: examples crafted on a surrogate model and tried on another."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.models.classifier import frozen
from core.rng import Rng
from core.threat import ThreatModel


class Transfer(Attack):
    """A transfer attack, Papernot et al. 2016, https://arxiv.org/abs/1605.07277.

    The surrogate is a model, not data, so a spec cannot name it: this attack is made in code and not in the catalog.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    title: ClassVar[str] = "Transfer from a surrogate model"
    paper: ClassVar[str] = "https://arxiv.org/abs/1605.07277"

    name: str = "transfer"
    attack: Attack
    surrogate: nn.Module = Field(exclude=True)

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """The inner attack's run on the surrogate; the model itself is asked once, by the verification."""
        with frozen(self.surrogate):
            return self.attack.craft(self.surrogate, x, y, threat, rng, run)

    def work(self, num_classes: int) -> list[float]:
        """As the inner attack."""
        return self.attack.work(num_classes)
