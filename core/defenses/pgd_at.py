"""pgd-at: adversarial training as Madry et al. define it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, CraftIn, Defense, Moment, State
from core.inner_attacks.base import InnerAttack
from core.inner_attacks.dra import InnerDRA
from core.inner_attacks.pgd import InnerPGD
from core.models.classifier import Classifier, frozen
from core.registry import one_of

if TYPE_CHECKING:
    AnyInner: TypeAlias = InnerAttack
else:
    AnyInner = one_of(InnerPGD, InnerDRA)


class PGDAT(Defense):
    """Madry et al. 2018, https://arxiv.org/abs/1706.06083: the min-max problem, its inner maximum found by PGD.

    With the ``dra`` attack inside it is "Madry + DRA", table V of Hou et al. 2022.
    """

    title: ClassVar[str] = "Adversarial training on PGD examples"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.06083"

    name: Literal["pgd-at"] = "pgd-at"
    attack: AnyInner = Field(InnerPGD(), description="What crafts the training examples.")
    craft_in: CraftIn = Field("eval", description="Mode of BatchNorm and dropout while crafting.")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x_adv)."""
        with frozen(model, evaluate=self.craft_in == "eval"):
            x_adv = self.attack.craft(model, batch.x, batch.y, moment.threat, batch.rng, strength=moment.strength)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """K + 1."""
        return self.attack.fb_per_example() + 1
