"""What every attack is: hyper-parameters in the object, the problem in the call."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.classifier import frozen
from core.projections import project
from core.registry import Entry
from core.rng import Rng
from core.threat import Norm, ThreatModel


class Found(NamedTuple):
    """What a run came to: candidates (n, c, h, w), and how often the model was asked for each image, int64 (n,)."""

    x_adv: Tensor
    queries: Tensor


@dataclass(frozen=True)
class Run:
    """Which run of an attack this is, and where the last one left off (the clean images before the first)."""

    number: int
    last: Tensor


class Attack(Entry):
    """Crafts adversarial examples under a threat model.

    An attack is one or more runs: restarts, target classes, or stretches of one long search. Each run sees only images
    that no earlier one fooled, and an evaluation can be stopped and resumed between two. A subclass writes ``craft``;
    its result is never trusted: it is projected once more, and the evaluation checks it again.
    """

    bounded: ClassVar[bool] = True  # False: the result may leave the ball, so it proves nothing about the threat model
    uses_gradients: ClassVar[bool] = True  # False: black-box, it sees only logits
    carries_on: ClassVar[bool] = False  # True: each run goes on from the last one's result, which has to be kept
    norms: ClassVar[frozenset[Norm]] = frozenset({"linf", "l2", "l1"})

    @abstractmethod
    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """Adversarial candidates for ``x`` from one run; the model is frozen and in evaluation mode."""

    @abstractmethod
    def work(self, num_classes: int) -> list[float]:
        """The most FB that each run spends on one image; a forward pass alone counts as half.

        Its length is the number of runs.
        """

    def adapted(self, num_classes: int) -> str | None:
        """What the attack does otherwise with so few classes; None if it runs as published."""
        return None

    def fb_per_image(self, num_classes: int = 10) -> float:
        """The most work on one image, all runs together, in FB."""
        return sum(self.work(num_classes))

    @final
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
        """Adversarial examples for a batch, from all runs.

        Args:
            model: maps (n, c, h, w) in [0, 1] to logits; its mode, flags and gradients come back untouched.
            x: clean images (n, c, h, w) in [0, 1].
            y: true labels, int64 (n,); never predictions, which would leak the label the other way.
            threat: the ball to stay in.
            rng: one stream an image, so that the result depends on no other image of the batch.
        Returns: images of the shape of ``x``, in the box, and in the ball unless the attack is unbounded.
        Raises: UnsupportedError if the attack does not know the norm.
        """
        result = x.clone()
        standing = torch.arange(len(x), device=x.device)
        with frozen(model), torch.no_grad():
            runs = len(self.work(model(x[:1]).shape[1])) if len(x) else 0
            for number in range(runs):
                clean, labels = x[standing], y[standing]
                last = result[standing] if self.carries_on else clean
                found = self.perturb_once(model, clean, labels, threat, rng[standing], Run(number, last))
                result[standing] = found.x_adv
                if number + 1 < runs:
                    standing = standing[model(found.x_adv).argmax(1) == labels]
                    if len(standing) == 0:
                        break
        return result

    @final
    def perturb_once(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One run; arguments and result as for ``perturb``."""
        self.check(threat)
        with frozen(model), torch.no_grad():
            x_adv, queries = self.craft(model, x, y, threat, rng.fork(run.number), run)
            return Found(project(x_adv, x, threat) if self.bounded else x_adv.clamp(0, 1), queries)

    def check(self, threat: ThreatModel) -> None:
        """Raise UnsupportedError if the attack does not know the threat model's norm."""
        if threat.norm not in self.norms:
            known = ", ".join(sorted(self.norms))
            raise UnsupportedError(
                f"attack {self.name!r} does not support norm {threat.norm!r}", f"use one of: {known}"
            )


def all_alike(x_adv: Tensor, queries: int) -> Found:
    """A result for which every image was asked the same number of times."""
    return Found(x_adv, torch.full((len(x_adv),), queries, device=x_adv.device))
