"""What every attack is: hyper-parameters in the object, the problem in the call."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.classifier import frozen
from core.projections import project
from core.registry import Entry
from core.rng import Rng
from core.threat import Norm, ThreatModel


class Attack(Entry):
    """Crafts adversarial examples under a threat model.

    A subclass writes ``craft``; ``perturb`` never trusts it and projects once more.
    """

    bounded: ClassVar[bool] = True  # False: the result may leave the ball, so it proves nothing about the threat model
    norms: ClassVar[frozenset[Norm]] = frozenset({"linf", "l2"})

    @abstractmethod
    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Adversarial candidates for ``x``; the model is frozen and in evaluation mode."""

    @abstractmethod
    def fb_per_image(self) -> int:
        """The most forward-backward passes spent on one image."""

    @final
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Adversarial examples for a batch.

        Args:
            model: maps (n, c, h, w) in [0, 1] to logits; its mode, flags and gradients come back untouched.
            x: clean images (n, c, h, w) in [0, 1].
            y: true labels, int64 (n,); never predictions, which would leak the label the other way.
            threat: the ball to stay in.
            rng: one stream an image, so that the result depends on no other image of the batch.
        Returns: images of the shape of ``x``, in the box, and in the ball unless the attack is unbounded.
        Raises: UnsupportedError if the attack does not know the norm.
        """
        self.check(threat)
        with frozen(model), torch.no_grad():
            x_adv = self.craft(model, x, y, threat, rng)
            return project(x_adv, x, threat) if self.bounded else x_adv.clamp(0, 1)

    def check(self, threat: ThreatModel) -> None:
        """Raise UnsupportedError if the attack does not know the threat model's norm."""
        if threat.norm not in self.norms:
            known = ", ".join(sorted(self.norms))
            raise UnsupportedError(
                f"attack {self.name!r} does not support norm {threat.norm!r}", f"use one of: {known}"
            )
