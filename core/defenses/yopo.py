"""yopo: the perturbation is updated through the first layer only, between a few full passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, Setting, State, fine_tuning
from core.first_layer import first_layer, output_of, watch
from core.models.base import Domain
from core.models.classifier import Classifier, frozen
from core.projections import project, steepest, uniform_in_ball
from core.values import StepSize, resolve_step_size


class YOPO(Defense):
    """D. Zhang et al. 2019, "You Only Propagate Once", algorithm 1, https://arxiv.org/abs/1905.00877.

    m times: a full pass at x + eta, which gives weight gradients and p = -dCE/df1 at the first layer's output f1; then
    n steps that descend <p, f1(x + eta)> in eta. One optimizer step is taken on the sum of the m weight gradients.
    Between batches nothing is kept: eta starts anew.
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
        """Find the first layer, or say why there is none."""
        x, _, _ = setting.images.batch(np.arange(2) % len(setting.images), model.mean.device)
        first_layer(model, x)

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """m times CE(x + eta)."""
        x, threat = batch.x, moment.threat
        layer = first_layer(model, x[:2])
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.layer_steps)
        x_adv = uniform_in_ball(x, threat, batch.rng.fork("start"))
        for _ in range(self.full_passes):
            with watch(layer) as seen:
                loss = moment.cross_entropy(model(x_adv), batch.y)
            yield loss
            p = -seen.gradient()
            with frozen(model, evaluate=False):
                for _ in range(self.layer_steps):
                    x_adv = x_adv.detach().requires_grad_(True)
                    hamiltonian = (p * output_of(model, layer, x_adv)).sum()
                    grad = torch.autograd.grad(hamiltonian, x_adv)[0]
                    x_adv = project(x_adv.detach() - step_size * steepest(grad, threat.norm), x, threat)
            model.cost.first_layer += self.layer_steps * len(x)

    def adversarial_fb(self) -> int:
        """m, beside m * n through the first layer."""
        return self.full_passes
