"""fab-t: the fast adaptive boundary attack towards each of the likeliest other classes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.attacks.boundary import nearest_boundary
from core.losses import likeliest_others
from core.rng import Rng
from core.threat import ThreatModel


class TargetedFAB(Attack):
    """Targeted FAB, Croce and Hein 2020, https://arxiv.org/abs/2003.01690, section 5 (one backward pass a step)."""

    title: ClassVar[str] = "Fast adaptive boundary attack towards each of the likeliest other classes"
    paper: ClassVar[str] = "https://arxiv.org/abs/1907.02044"

    name: Literal["fab-t"] = "fab-t"
    steps: int = Field(100, ge=1, le=10_000, description="Steps for each target.")
    targets: int = Field(9, ge=1, le=1000, description="Target classes; at most all others.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One target; see the base class."""
        logits = model(x)
        target = likeliest_others(logits, y, min(self.targets, logits.shape[1] - 1))[:, run.number]
        found = nearest_boundary(model, x, x, y, threat.norm, steps=self.steps, target=target, enough=threat.eps)
        return Found(found.x_adv, found.queries + 1)

    def work(self, num_classes: int) -> list[float]:
        """An FB and a forward pass a step, and one to choose the target."""
        return [self.steps * 1.5 + 0.5] * min(self.targets, num_classes - 1)

    def adapted(self, num_classes: int) -> str | None:
        """No more targets than other classes."""
        if num_classes - 1 < self.targets:
            return f"{num_classes - 1} target(s) in place of {self.targets}"
        return None
