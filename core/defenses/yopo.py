"""yopo: the perturbation is updated through the first layer only, between a few full passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, Setting, State, fine_tuning
from core.first_layer import check_first_layer
from core.models.base import Domain
from core.models.classifier import Classifier
from core.projections import ascent_step, uniform_in_ball
from core.values import StepSize, resolve_step_size


class YOPO(Defense):
    """D. Zhang et al. 2019, "You Only Propagate Once", algorithm 1, https://arxiv.org/abs/1905.00877.

    m times: a full pass at x + eta, which gives weight gradients and p = -dCE/df1 at the first layer's output f1; then
    n steps that descend <p, f1(x + eta)> in eta. One optimizer step is taken on the sum of the m weight gradients.

    The first layer is a convolution or a dense layer, so f1 is affine in eta: the gradient of <p, f1(x + eta)> is W'p
    at every eta, and that is -dCE/dx of the full pass. So all n steps follow the one gradient that the full pass gives,
    and the first layer need not be run again. Between batches nothing is kept: eta starts anew.
    """

    title: ClassVar[str] = "You only propagate once: inner steps through the first layer only"
    paper: ClassVar[str] = "https://arxiv.org/abs/1905.00877"
    sums_gradients: ClassVar[bool] = True

    name: Literal["yopo"] = "yopo"
    full_passes: int = Field(5, ge=1, le=100, description="Full forward and backward passes (m).")
    layer_steps: int = Field(3, ge=1, le=100, description="Steps through the first layer after each of them (n).")
    step_size: StepSize = Field("eps/4", description="Size of these steps, absolute or relative to eps.")

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """As fine-tuning; the paper's m-n is 5-3 on CIFAR and 5-10 on MNIST."""
        grey = {"layer_steps": 10, "step_size": "eps/30"}
        return fine_tuning(domain, small=small, parameters=grey if domain == "grey28" else None)

    def check(self, model: Classifier, setting: Setting) -> None:
        """The images have to enter the network through one first layer."""
        x, _, _ = setting.images.batch(np.arange(2) % len(setting.images), model.mean.device)
        check_first_layer(model, x)

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """m times CE(x + eta)."""
        x, threat = batch.x, moment.threat
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.layer_steps)
        x_adv = uniform_in_ball(x, threat, batch.rng.fork("start"))
        for _ in range(self.full_passes):
            x_adv = x_adv.detach().requires_grad_(True)
            yield moment.precise_cross_entropy(model(x_adv), batch.y)
            if x_adv.grad is None:
                raise RuntimeError("the loop has to go back before it asks for the next loss")
            grad, x_adv = x_adv.grad, x_adv.detach()
            for _ in range(self.layer_steps):
                x_adv = ascent_step(x_adv, grad, x, threat, step_size)

    def adversarial_fb(self) -> int:
        """m."""
        return self.full_passes
