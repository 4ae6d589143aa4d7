"""Transfer: examples crafted on a surrogate model and tried on another."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field
from torch import Tensor, nn

from core.attacks.ascent import ascend
from core.attacks.base import Attack, Found, Run, all_alike
from core.models.classifier import frozen
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size


class Transfer(Attack):
    """A transfer attack, Papernot et al. 2016, https://arxiv.org/abs/1605.07277: all of PGD's steps on the surrogate.

    Unlike an attack on the model itself it does not stop where the surrogate is fooled: examples that barely cross
    one model's border seldom cross another's. The surrogate is a model, not data, so a spec cannot name it: this
    attack is made in code and not in the catalog.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    title: ClassVar[str] = "Transfer from a surrogate model"
    paper: ClassVar[str] = "https://arxiv.org/abs/1605.07277"
    uses_gradients: ClassVar[bool] = False  # not the attacked model's

    name: str = "transfer"
    surrogate: nn.Module = Field(exclude=True)
    steps: int = Field(20, ge=1, le=10_000, description="Gradient steps.")
    step_size: StepSize = Field("2.5*eps/steps", description='Step, absolute or relative to eps ("eps/4").')

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """PGD on the surrogate; the model itself is asked once, by the verification."""
        size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        start = uniform_in_ball(x, threat, rng)
        with frozen(self.surrogate):
            x_adv = ascend(self.surrogate, start, x, y, threat, steps=self.steps, step_size=size)
        return all_alike(x_adv, 1)

    def work(self, num_classes: int) -> list[float]:
        """One FB of the surrogate a step."""
        return [self.steps]
