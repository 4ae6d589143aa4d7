"""temper: our own way to fine-tune a clean checkpoint: few-step PGD examples under an optimizer that moves far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from core.defenses.base import AUGMENT, Batch, Defense, Moment, Published, State
from core.inner_attacks.pgd import InnerPGD
from core.models.base import Domain
from core.models.classifier import Classifier, frozen
from core.values import StepSize


class Temper(Defense):
    """Cross-entropy on PGD-5 examples, as Madry et al. 2018 and Jeddi et al. 2020; what is ours is the set-up.

    A few epochs from a clean checkpoint are bound by how far the weights can travel. Orthogonalised steps (Muon) at ten
    times Adam's rate bring more than any change of the loss, the schedule or the number of steps; docs/adr/0011 has the
    measurements, and what did not pay.
    """

    title: ClassVar[str] = "Ours: PGD-5 examples under Muon, the rate rising and falling once"
    paper: ClassVar[str] = "docs/adr/0011-temper.md"

    name: Literal["temper"] = "temper"
    steps: int = Field(5, ge=1, le=1000, description="PGD steps for each training example (K).")
    step_size: StepSize = Field("2.5*eps/steps", description='PGD step, absolute or relative to eps ("eps/4").')

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Ten epochs of Muon; the rate for larger networks is a fifth, and not measured."""
        peak = 1e-2 if small else 2e-3
        return Published(
            epochs=10,
            optimizer="muon",
            lr={"muon": peak, "adam": peak / 3, "rmsprop": peak / 3, "sgd": 3 * peak},
            schedule={"name": "cyclic"},
            augment=AUGMENT[domain],
            select="robust",
            batch_size=64 if small else 128,
        )

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x_adv)."""
        attack = InnerPGD(steps=self.steps, step_size=self.step_size)
        with frozen(model):
            x_adv = attack.craft(model, batch.x, batch.y, moment.threat, batch.rng)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def adversarial_fb(self) -> int:
        """K + 1."""
        return self.steps + 1
