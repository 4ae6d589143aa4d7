"""apgd-t: Auto-PGD on the targeted difference of logits ratio, one likely class after the other."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.auto_pgd import auto_pgd
from core.attacks.base import Attack, Found, Run
from core.losses import likeliest_others, targeted_dlr
from core.rng import Rng
from core.threat import ThreatModel


class TargetedAPGD(Attack):
    """Targeted Auto-PGD, Croce and Hein 2020, https://arxiv.org/abs/2003.01690, section 4.

    Each run aims at one class, the likeliest at the clean image first; any misclassification is a success.
    """

    title: ClassVar[str] = "Auto-PGD towards each of the likeliest other classes"
    paper: ClassVar[str] = "https://arxiv.org/abs/2003.01690"

    name: Literal["apgd-t"] = "apgd-t"
    steps: int = Field(100, ge=1, le=10_000, description="Gradient steps for each target.")
    targets: int = Field(9, ge=1, le=1000, description="Target classes; at most all others.")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One target; see the base class."""
        logits = model(x)
        target = likeliest_others(logits, y, min(self.targets, logits.shape[1] - 1))[:, run.number]
        found = auto_pgd(model, x, torch.stack([y, target], 1), threat, targeted_dlr, rng, steps=self.steps)
        return Found(found.x_adv, found.queries + 1)

    def work(self, num_classes: int) -> list[float]:
        """One FB a step, those at the start, and a forward pass to choose the target."""
        return [self.steps + 3.5] * min(self.targets, num_classes - 1)

    def adapted(self, num_classes: int) -> str | None:
        """Targeted DLR looks at the four largest logits."""
        changes = []
        if num_classes < 4:
            changes.append(f"the targeted DLR loss needs 4 classes; with {num_classes} the targeted margin was used")
        if num_classes - 1 < self.targets:
            changes.append(f"{num_classes - 1} target(s) in place of {self.targets}")
        return "; ".join(changes) or None
