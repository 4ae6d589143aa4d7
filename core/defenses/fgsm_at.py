"""fgsm-at: adversarial training on single-step examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.gradients import ascent_gradient
from core.models.classifier import Classifier, frozen
from core.projections import best_linear


class FGSMAT(Defense):
    """Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572: one step of the whole eps from the clean image.

    Known to collapse: the network learns to fool the single step, and PGD then finds nothing left of the robustness.
    """

    title: ClassVar[str] = "Adversarial training on FGSM examples, no random start"
    paper: ClassVar[str] = "https://arxiv.org/abs/1412.6572"

    name: Literal["fgsm-at"] = "fgsm-at"
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x + eps * sign(grad CE))."""
        with frozen(model, evaluate=self.craft_in == "eval"):
            grad, _ = ascent_gradient(model, batch.x, batch.y)
        x_adv = best_linear(batch.x, grad, moment.threat)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """2."""
        return 2
