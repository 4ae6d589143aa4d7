"""mart: misclassified images weigh more in the divergence term."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.inner_attacks.pgd import InnerPGD
from core.losses import boost, doubt, kl_divergence
from core.models.classifier import Classifier, frozen


class MART(Defense):
    """Y. Wang et al., ICLR 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples".

    BCE(x_adv) + beta * mean[(1 - p_y(x)) * KL(p(x), p(x_adv))], where the boosted cross-entropy BCE is
    -log p_y - log(1 - max over k != y of p_k). Examples are crafted by PGD on cross-entropy.
    """

    title: ClassVar[str] = "MART: boosted cross-entropy, and a divergence weighted by 1 - p_y"
    paper: ClassVar[str] = "https://openreview.net/forum?id=rklOg6EFwS"

    name: Literal["mart"] = "mart"
    beta: float = Field(5, ge=0, le=1000, description="Weight of the divergence.")
    attack: InnerPGD = Field(InnerPGD(), description="What crafts the training examples.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """See the class; the gradient flows through the weight (1 - p_y(x)) too."""
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = self.attack.craft(model, batch.x, batch.y, moment.threat, batch.rng)
        clean, adversarial = model(batch.x), model(x_adv)
        boosted = moment.cross_entropy(adversarial, batch.y) + boost(adversarial, batch.y).mean()
        yield boosted + self.beta * (doubt(clean, batch.y) * kl_divergence(clean, adversarial)).mean()

    def adversarial_fb(self) -> int:
        """K + 2."""
        return self.attack.fb_per_example() + 2
