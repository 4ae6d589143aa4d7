"""mixed: clean and adversarial cross-entropy, equally weighted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.defenses.rst import RST
from core.inner_attacks.pgd import InnerPGD
from core.models.classifier import Classifier


class Mixed(Defense):
    """Mixed-minibatch training, eq. 4 of Hou et al. 2022: ``rst`` with beta 1, a name of its own in the literature."""

    title: ClassVar[str] = "Clean and adversarial cross-entropy, equally weighted"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"

    name: Literal["mixed"] = "mixed"
    attack: InnerPGD = Field(InnerPGD(), description="What crafts the training examples.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x) + CE(x_adv)."""
        rst = RST(beta=1, attack=self.attack, craft_in=self.craft_in)
        return rst.adversarial_losses(model, batch, moment, state)

    def adversarial_fb(self) -> int:
        """K + 2."""
        return self.attack.fb_per_example() + 2
