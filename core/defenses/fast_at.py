"""fast-at: single-step adversarial training with a random start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.attacks.ascent import ascend
from core.defenses.base import Batch, CraftIn, Defense, Moment, Published, State, fine_tuning
from core.models.base import Domain
from core.models.classifier import Classifier, frozen
from core.projections import uniform_in_ball
from core.values import StepSize, resolve_step_size


class FastAT(Defense):
    """Wong, Rice, Kolter 2020, "Fast is better than free", https://arxiv.org/abs/2001.03994.

    One step of 1.25 * eps from a uniform start, projected. It can collapse within an epoch; the loop watches for that.
    """

    title: ClassVar[str] = "Adversarial training on one FGSM step from a random start"
    paper: ClassVar[str] = "https://arxiv.org/abs/2001.03994"

    name: Literal["fast-at"] = "fast-at"
    step_size: StepSize = Field("1.25*eps", description="The one step, absolute or relative to eps.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """As fine-tuning, but with its own triangular schedule."""
        return replace(fine_tuning(domain, small=small), schedule={"name": "cyclic"})

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x_adv)."""
        step_size = resolve_step_size(self.step_size, eps=moment.threat.eps, steps=1)
        start = uniform_in_ball(batch.x, moment.threat, batch.rng.fork("start"))
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = ascend(model, start, batch.x, batch.y, moment.threat, steps=1, step_size=step_size)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """2."""
        return 2
