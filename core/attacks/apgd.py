"""apgd-ce and apgd-dlr: untargeted Auto-PGD on cross-entropy and on the difference of logits ratio."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.auto_pgd import auto_pgd
from core.attacks.base import Attack, Found, Run
from core.losses import Loss, cross_entropy_margin, dlr
from core.rng import Rng
from core.threat import ThreatModel

_LOSSES: dict[str, Loss] = {"apgd-ce": cross_entropy_margin, "apgd-dlr": dlr}


class APGD(Attack):
    """Auto-PGD, Croce and Hein 2020, https://arxiv.org/abs/2003.01690; for l1 2021, https://arxiv.org/abs/2103.01208."""

    title: ClassVar[str] = "Auto-PGD: projected gradient ascent that chooses its own steps"
    paper: ClassVar[str] = "https://arxiv.org/abs/2003.01690"

    name: Literal["apgd-ce", "apgd-dlr"]
    steps: int = Field(100, ge=1, le=10_000, description="Gradient steps in each restart.")
    restarts: int = Field(1, ge=1, le=1000, description="Random starts; an image counts as fooled if one succeeds.")
    eot: int = Field(1, ge=1, le=1000, description="Passes averaged for each gradient, for randomised models.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One random start; see the base class."""
        return auto_pgd(model, x, y, threat, _LOSSES[self.name], rng, steps=self.steps, samples=self.eot)

    def work(self, num_classes: int) -> list[float]:
        """One FB a step and sample, and those at the start (l1: of three stages)."""
        return [(self.steps + 3) * self.eot] * self.restarts

    def adapted(self, num_classes: int) -> str | None:
        """DLR divides by the gap to the third class."""
        if self.name == "apgd-dlr" and num_classes < 3:
            return f"the DLR loss needs 3 classes; with {num_classes} the margin loss was used"
        return None
