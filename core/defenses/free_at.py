"""free-at: one backward pass updates the weights and the perturbation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, Setting, State, fine_tuning
from core.models.base import Domain
from core.models.classifier import Classifier
from core.projections import onto_ball, steepest
from core.threat import Norm


class FreeAT(Defense):
    """Shafahi et al. 2019, "Adversarial Training for Free!", algorithm 1, https://arxiv.org/abs/1904.12843.

    Each batch is replayed m times. A replay's one backward pass gives the gradients of the weights and of the
    perturbation, which lives on through replays, batches and epochs. ``training.epochs`` counts the replays: with
    m = 8, 16 epochs go over the data in two epochs of eight replays each.
    """

    title: ClassVar[str] = "Free adversarial training: replays that update weights and perturbation at once"
    paper: ClassVar[str] = "https://arxiv.org/abs/1904.12843"
    norms: ClassVar[frozenset[Norm]] = frozenset({"linf", "l2"})

    name: Literal["free-at"] = "free-at"
    replays: int = Field(8, ge=1, le=100, description="Replays of each batch (m).")

    @property
    def passes(self) -> int:
        """m."""
        return self.replays

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """As fine-tuning; the paper's m is 8 on CIFAR, 4 on ImageNet."""
        return fine_tuning(domain, small=small, parameters={"replays": 4} if domain == "imagenet" else None)

    def start(self, model: Classifier, setting: Setting) -> State:
        """The perturbation of a whole batch, zero."""
        image = setting.image
        shape = (min(setting.batch_size, len(setting.images)), image.channels, image.height, image.width)
        return {"delta": torch.zeros(shape, device=model.mean.device)}

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """m times CE(x + delta); then delta <- clip(delta + eps * sign(grad))."""
        count, threat = len(batch.x), moment.threat
        delta = onto_ball(batch.share.of(state["delta"])[:count], threat)
        for _ in range(self.replays):
            # the gradient at the image itself: through the clamp, black and white pixels would get none
            x_adv = (batch.x + delta).clamp(0, 1).requires_grad_(True)
            yield moment.precise_cross_entropy(model(x_adv), batch.y)
            if x_adv.grad is None:
                raise RuntimeError("the loop has to go back before it asks for the next loss")
            delta = onto_ball(delta + threat.eps * steepest(x_adv.grad, threat.norm), threat)
        delta = batch.share.whole(delta)
        state["delta"][: len(delta)] = delta

    def adversarial_fb(self) -> int:
        """m."""
        return self.replays
