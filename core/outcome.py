"""One evaluated side with what it rests on, and how it is made: suite, curve, diagnosis, corruptions, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.attacks.fgsm import FGSM
from core.attacks.pgd import PGD
from core.corruption_accuracy import PASSES, corruption_accuracy
from core.curve import accuracy_curve
from core.diagnose import diagnose
from core.evaluate import Bench, entries_for, evaluate
from core.models.classifier import Classifier
from core.report import Side
from core.spec import EvaluationSpec
from core.suites import Entry, Suite
from core.summary import clean_mask, robust_mask, summarise
from core.tally import Integers, Ledger, Mask, Tally
from core.threat import ThreatModel

SAVE_SECONDS = 30.0

PREVIEW_IMAGES = 256
_CURVE_FB, _DIAGNOSIS_FB = 45.0, 300.0  # on each of up to 200 images, for the estimate of time
_CORRUPTION_FB = 1.0 * PASSES  # a forward pass and the corruption itself


@dataclass(frozen=True)
class Outcome:
    """A side of the report, and image by image what it rests on."""

    side: Side
    clean: Mask
    robust: Mask
    predictions: Integers
    tallies: list[Tally]

    def to_json(self) -> dict[str, Any]:
        """Plain values, to resume from."""
        return {
            "side": self.side.model_dump(mode="json"),
            "clean": self.clean.tolist(),
            "robust": self.robust.tolist(),
            "predictions": self.predictions.tolist(),
            "tallies": [tally.to_json() for tally in self.tallies],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """The inverse of ``to_json``."""
        return cls(
            Side.model_validate(data["side"]),
            np.array(data["clean"], bool),
            np.array(data["robust"], bool),
            np.array(data["predictions"], np.int64),
            [Tally.from_json(tally) for tally in data["tallies"]],
        )


def extra_fb(spec: EvaluationSpec, images: int) -> float:
    """Work beyond the suite, in FB."""
    few = min(images, 200)
    diagnosis = _DIAGNOSIS_FB * few if spec.diagnose else 0.0
    return _CURVE_FB * few + diagnosis + (_CORRUPTION_FB * images if spec.corruptions else 0.0)


def evaluate_side(
    model: Classifier,
    bench: Bench,
    suite: Suite,
    headline: ThreatModel,
    spec: EvaluationSpec,
    *,
    ledger: Ledger,
    save: Callable[[], None],
    on_progress: Callable[[float], None],
    deployed: Classifier | None = None,
    surrogate: Classifier | None = None,
) -> Outcome:
    """The suite, saved at least every half minute, then what the spec asks for beside it.

    Args:
        ledger: where to go on from; ``save`` is called when it should be kept.
        on_progress: told the fraction done; may raise Stopped, after which a saved ledger loses nothing.
    """
    rest = extra_fb(spec, len(bench.images))
    suite_fb = len(bench.images) * sum(e.attack.fb_per_image(bench.num_classes) for e in suite.entries)
    suite_share = suite_fb / max(suite_fb + rest, 1e-9)
    last_save = time.monotonic()

    def on_batch(fraction: float) -> None:
        nonlocal last_save
        if time.monotonic() - last_save > SAVE_SECONDS:
            save()
            last_save = time.monotonic()
        on_progress(suite_share * fraction)

    evaluate(model, bench, suite, ledger=ledger, on_batch=on_batch)
    save()
    entries = entries_for(suite, randomised=ledger.randomised)
    side = summarise(ledger, bench, suite, headline)
    done = suite_share * 1.0

    def further(fb: float) -> None:
        nonlocal done
        done = min(1.0, done + (1 - suite_share) * fb / max(rest, 1e-9))
        on_progress(done)

    few = min(len(bench.images), 200)
    curve = accuracy_curve(model, bench, ledger, entries, headline)
    further(_CURVE_FB * few)
    signs = None
    if spec.diagnose:
        signs = diagnose(
            model, bench, ledger, entries, headline,
            deployed=deployed, surrogate=surrogate, on_check=lambda: further(_DIAGNOSIS_FB * few / 20),
        )  # fmt: skip
    corruptions = None
    if spec.corruptions:
        corruptions = corruption_accuracy(
            model, bench, on_each=lambda: further(_CORRUPTION_FB * len(bench.images) / PASSES)
        )
    if ledger.predictions is None:
        raise ValueError("nothing has been evaluated")
    return Outcome(
        side.model_copy(update={"curve": curve, "diagnosis": signs, "corruptions": corruptions}),
        clean_mask(ledger, bench),
        robust_mask(ledger, bench, entries, headline),
        ledger.predictions,
        ledger.tallies,
    )


def preview(model: Classifier, bench: Bench, headline: ThreatModel) -> Side:
    """A first answer on a few hundred images, within seconds: clean, FGSM, PGD-20."""
    few = Bench(
        bench.images.choose(np.arange(min(PREVIEW_IMAGES, len(bench.images)))),
        bench.num_classes,
        bench.seed,
        bench.batch_size,
        bench.device,
    )
    suite = Suite((Entry(FGSM(), headline), Entry(PGD(steps=20, step_size="eps/4"), headline)))
    return summarise(evaluate(model, few, suite), few, suite, headline)


def ledger_path(state: Path, side: str) -> Path:
    """Where a side's evaluation in progress is kept."""
    return state / f"evaluation-{side}.npz"
