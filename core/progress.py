"""How far a run is, and how long it will take: phases weighed by the passes they need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from core.defenses.auto import Auto
from core.outcome import extra_fb
from core.search.plan import expected
from core.spec import JobSpec
from core.suites import Suite

# shares of an attack's full cost that images take before they are fooled and leave, before and after hardening
_BEFORE, _AFTER = 0.3, 0.7
_VALIDATION_FB = 2 * 10 + 1  # PGD-10 on held-out images and on as many training images, and FGSM


class Progress:
    """Turns a phase's own fraction into the run's, and into an ETA from the speed of this run.

    ``epochs``: of the training; a search sets it when it knows how many there will be.
    """

    def __init__(
        self, spec: JobSpec, *, images: int, num_classes: int, suite: Suite, train_images: int, held_out: int
    ) -> None:
        attack_fb = images * sum(entry.attack.fb_per_image(num_classes) for entry in suite.entries)
        attack_fb += extra_fb(spec.evaluation, images)
        self.epochs, self._train_images = spec.epochs, train_images
        training = float(sum(train_images * spec.fb_per_example(epoch) for epoch in range(self.epochs)))
        training += _VALIDATION_FB * held_out * self.epochs
        search = 0.0
        if isinstance(spec.defense, Auto):
            search, training = expected(spec.defense, train_images)
        self._planned = {
            "baseline": _BEFORE * attack_fb,
            "search": search,
            "training": training,
            "evaluating": _AFTER * attack_fb if training else 0.0,
        }
        self._begun: tuple[float, float] | None = None  # time and fraction at this process's first report
        self._epoch: tuple[int, float, float] | None = None  # number, time and share at this epoch's first report
        self._speed: float | None = None

    def reporter(self, phase: str, on_event: Callable[[dict[str, Any]], None]) -> Callable[[float, int], None]:
        """A function of (fraction of the phase, epochs done) that emits progress events for one phase.

        Those of training tell its speed too: images, of the training set, a second; seconds an epoch takes at that
        speed; and the GPU's peak memory in bytes, null without one.
        """
        phases = list(self._planned)
        before = sum(self._planned[name] for name in phases[: phases.index(phase)])
        total = max(1.0, sum(self._planned.values()))

        def report(share: float, epoch: int) -> None:
            fraction = (before + share * self._planned[phase]) / total
            event = {
                "type": "progress",
                "epoch": epoch,
                "epochs": self.epochs,
                "fraction": round(fraction, 4),
                "eta_seconds": self._eta(fraction),
            }
            on_event({**event, **self._pace(share, epoch)} if phase == "training" else event)

        return report

    def _eta(self, fraction: float) -> float | None:
        moment = time.monotonic()
        if self._begun is None:
            self._begun = (moment, fraction)
        done = fraction - self._begun[1]
        return round((moment - self._begun[0]) / done * (1 - fraction), 1) if done > 0.01 else None

    def _pace(self, share: float, epoch: int) -> dict[str, float | None]:
        moment = time.monotonic()
        if self._epoch is None or self._epoch[0] != epoch:  # validation lies between two epochs
            self._epoch = (epoch, moment, share)
        elif moment > self._epoch[1]:
            self._speed = (share - self._epoch[2]) * self.epochs * self._train_images / (moment - self._epoch[1])
        return {
            "images_per_second": round(self._speed, 1) if self._speed else None,
            "epoch_seconds": round(self._train_images / self._speed, 1) if self._speed else None,
            "gpu_memory_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None,
        }
