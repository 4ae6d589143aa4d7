"""ifgsm-at: adversarial training on iterated FGSM examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.attacks.ascent import ascend
from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.models.classifier import Classifier, frozen
from core.values import StepSize, resolve_step_size


class IFGSMAT(Defense):
    """Kurakin et al. 2017, https://arxiv.org/abs/1607.02533: K steps from the clean image, no random start."""

    title: ClassVar[str] = "Adversarial training on I-FGSM examples, no random start"
    paper: ClassVar[str] = "https://arxiv.org/abs/1607.02533"

    name: Literal["ifgsm-at"] = "ifgsm-at"
    steps: int = Field(10, ge=1, le=1000, description="Gradient steps for each training example (K).")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE of the last iterate."""
        step_size = resolve_step_size(self.step_size, eps=moment.threat.eps, steps=self.steps)
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = ascend(model, batch.x, batch.x, batch.y, moment.threat, steps=self.steps, step_size=step_size)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """K + 1."""
        return self.steps + 1
