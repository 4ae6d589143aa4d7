"""dra: the dynamically regulated adversary, which stays in no ball."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.dra import dynamically_regulated
from core.inner_attacks.base import InnerAttack
from core.rng import Rng
from core.threat import ThreatModel
from core.values import Pixels


class InnerDRA(InnerAttack):
    """Hou et al. 2022, algorithm 1, https://arxiv.org/abs/2204.13232."""

    title: ClassVar[str] = "Dynamically regulated adversary (unbounded)"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"

    name: Literal["dra"] = "dra"
    mean_change: Pixels = Field(
        2 / 255, le=1, description="Mean absolute change of a pixel at full strength (the paper's epsilon)."
    )
    p: float = Field(1 / 3, ge=0, le=1, description="Share of pixels that may change, by gradient magnitude.")
    steps: int = Field(5, ge=1, le=1000, description="Gradient steps for each training example (T).")

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, *, strength: float = 1.0
    ) -> Tensor:
        """See the base class; it has no random start, and the threat model does not bound it."""
        change = self.mean_change * strength
        return dynamically_regulated(model, x, y, mean_change=change, p=self.p, steps=self.steps)

    def fb_per_example(self) -> int:
        """T; none if no pixel may change."""
        return 0 if self.p == 0 else self.steps
