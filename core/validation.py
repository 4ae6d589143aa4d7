"""What is measured after each epoch, on held-out training images and on as many trained ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.attacks.fgsm import FGSM
from core.attacks.pgd import PGD
from core.data import ImageSet
from core.evaluate import Bench, predict, survivors
from core.models.classifier import Classifier
from core.parallel import ALONE, Team
from core.threat import ThreatModel

_JUDGE = PGD(steps=10, step_size="eps/4")


@dataclass(frozen=True)
class Validation:
    """The attack's ball is the job's whole eps, whatever strength training has reached."""

    probe: ImageSet
    held_out: ImageSet
    num_classes: int
    seed: int
    batch_size: int
    device: torch.device
    threat: ThreatModel
    team: Team = ALONE

    def measure(self, model: Classifier) -> dict[str, float]:
        """The accuracies of an EpochCurve.

        Raises: BadLogitsError if the logits are not finite.
        """
        train_clean, train_robust, _ = self._accuracies(model, self.probe, fgsm=False)
        held_out_clean, held_out_robust, held_out_fgsm = self._accuracies(model, self.held_out, fgsm=True)
        return {
            "train_clean": train_clean,
            "train_robust": train_robust,
            "held_out_clean": held_out_clean,
            "held_out_robust": held_out_robust,
            "held_out_fgsm": held_out_fgsm,
        }

    def _accuracies(self, model: Classifier, images: ImageSet, *, fgsm: bool) -> tuple[float, float, float]:
        bench = Bench(images, self.num_classes, self.seed, self.batch_size, self.device, self.team)
        clean = predict(model, bench) == bench.labels
        one_step = survivors(model, bench, clean, FGSM(), self.threat) if fgsm else clean
        robust = survivors(model, bench, clean, _JUDGE, self.threat)
        return float(clean.mean()), float(robust.mean()), float(one_step.mean())
