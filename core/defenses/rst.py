"""rst: clean cross-entropy plus beta times adversarial cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.inner_attacks.pgd import InnerPGD
from core.models.classifier import Classifier, frozen


class RST(Defense):
    """Raghunathan et al. 2020, https://arxiv.org/abs/2002.10716, as eq. 5 of Hou et al. 2022 has it."""

    title: ClassVar[str] = "Clean cross-entropy plus beta times adversarial cross-entropy"
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.10716"

    name: Literal["rst"] = "rst"
    beta: float = Field(1, ge=0, le=1000, description="Weight of the adversarial cross-entropy.")
    attack: InnerPGD = Field(InnerPGD(), description="What crafts the training examples.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x) + beta * CE(x_adv)."""
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = self.attack.craft(model, batch.x, batch.y, moment.threat, batch.rng)
        clean = moment.cross_entropy(model(batch.x), batch.y)
        yield clean + self.beta * moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """K + 2."""
        return self.attack.fb_per_example() + 2
