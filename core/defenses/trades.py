"""trades: cross-entropy on the clean image, and how far the prediction moves under attack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.inner_attacks.base import InnerAttack
from core.inner_attacks.dra import InnerDRA
from core.inner_attacks.kl_pgd import KLPGD
from core.losses import kl_divergence
from core.models.classifier import Classifier, frozen
from core.registry import one_of

if TYPE_CHECKING:
    AnyInner: TypeAlias = InnerAttack
else:
    AnyInner = one_of(KLPGD, InnerDRA)


class TRADES(Defense):
    """H. Zhang et al. 2019, eq. 5, https://arxiv.org/abs/1901.08573: CE(x) + beta * KL(p(x), p(x_adv)).

    beta is 1 / lambda of the paper. With the ``dra`` attack inside it is "TRADES + DRA", table V of Hou et al. 2022.
    """

    title: ClassVar[str] = "TRADES: clean cross-entropy plus beta times the divergence under attack"
    paper: ClassVar[str] = "https://arxiv.org/abs/1901.08573"

    name: Literal["trades"] = "trades"
    beta: float = Field(6, ge=0, le=1000, description="Weight of the divergence: 1 / lambda of the paper.")
    attack: AnyInner = Field(KLPGD(), description="What crafts the training examples.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x) + beta * KL(p(x), p(x_adv)), both predictions made by the network in train mode."""
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = self.attack.craft(model, batch.x, batch.y, moment.threat, batch.rng, strength=moment.strength)
        clean = model(batch.x)
        divergence = kl_divergence(clean, model(x_adv)).mean()
        yield moment.cross_entropy(clean, batch.y) + self.beta * divergence

    def adversarial_fb(self) -> int:
        """K + 2."""
        return self.attack.fb_per_example() + 2
