"""aft: adversarial fine-tuning on PGD examples, slow start and fast decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, State
from core.inner_attacks.pgd import InnerPGD
from core.models.classifier import Classifier, frozen
from core.values import StepSize


class AFT(Defense):
    """Jeddi, Shafiee, Wong 2020, "A Simple Fine-tuning Is All You Need", https://arxiv.org/abs/2012.13628.

    Cross-entropy on PGD examples (random start, last iterate) for ten epochs, all layers, from a naturally
    trained model. Examples are crafted in evaluation mode, the update runs in train mode.
    """

    title: ClassVar[str] = "Adversarial fine-tuning: PGD examples, slow start and fast decay"
    paper: ClassVar[str] = "https://arxiv.org/abs/2012.13628"

    name: Literal["aft"] = "aft"
    steps: int = Field(10, ge=1, le=1000, description="PGD steps for each training example (K).")
    step_size: StepSize = Field("2.5*eps/steps", description='PGD step, absolute or relative to eps ("eps/4").')

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x_adv)."""
        attack = InnerPGD(steps=self.steps, step_size=self.step_size)
        with frozen(model):
            x_adv = attack.craft(model, batch.x, batch.y, moment.threat, batch.rng)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """K + 1."""
        return self.steps + 1
