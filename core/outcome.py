"""One evaluated side with what it rests on, and how it is made: suite, curve, diagnosis, corruptions, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.attacks.fgsm import FGSM
from core.attacks.pgd import PGD
from core.corruption_accuracy import PASSES, corruption_accuracy
from core.corruptions import CORRUPTIONS
from core.curve import accuracy_curve
from core.data import FEW, some
from core.diagnose import diagnose
from core.evaluate import Bench, entries_for, evaluate, predict_once
from core.models.classifier import Classifier
from core.parallel import ALONE
from core.report import Side
from core.spec import EvaluationSpec
from core.suites import Entry, Suite
from core.summary import clean_mask, robust_mask, summarise
from core.tally import Integers, Ledger, Mask, Tally
from core.threat import ThreatModel

PREVIEW_IMAGES = 256
_CURVE_FB, _DIAGNOSIS_FB = 45.0, 300.0  # on each of these, for the estimate of time
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
    few = min(images, FEW)
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
    on_step: Callable[[float], None],
    deployed: Classifier | None = None,
    surrogate: Classifier | None = None,
    before: Side | None = None,
) -> Outcome:
    """The suite, then what the spec asks for beside it: curve, diagnosis, corruptions.

    Args:
        ledger: where to go on from; it is filled in place, and holds together whenever ``on_step`` is called.
        on_step: told the fraction done after each batch and each further result; may raise Stopped.
    """
    images = len(bench.images)
    rest = extra_fb(spec, images)
    suite_fb = images * sum(e.attack.fb_per_image(bench.num_classes) for e in suite.entries)
    total_fb = max(suite_fb + rest, 1e-9)
    suite_share = suite_fb / total_fb

    evaluate(model, bench, suite, ledger=ledger, on_batch=lambda share: on_step(suite_share * share))
    entries = entries_for(suite, randomised=ledger.randomised)

    extras, few, each = ledger.extras, min(images, FEW), _CORRUPTION_FB * images / len(CORRUPTIONS)

    def further() -> None:
        done_fb = _CURVE_FB * few * ("curve" in extras) + _DIAGNOSIS_FB * few * ("diagnosis" in extras)
        ledger.steps += 1
        on_step(min(1.0, (suite_fb + done_fb + each * len(extras.get("corruptions", ()))) / total_fb))

    # a few images, looked at one after another in many ways: not worth sharing
    team, own = bench.team, replace(bench, team=ALONE)

    def look_at_curve() -> dict[str, Any] | None:
        curve = accuracy_curve(model, own, ledger, entries, headline)
        return curve.model_dump(mode="json") if curve else None

    def look_for_signs() -> list[dict[str, Any]]:
        signs = diagnose(model, own, ledger, entries, headline, deployed=deployed, surrogate=surrogate, before=before)
        return [sign.model_dump(mode="json") for sign in signs]

    if "curve" not in extras:
        extras["curve"] = team.first(look_at_curve)
        further()
    if spec.diagnose and "diagnosis" not in extras:
        extras["diagnosis"] = team.first(look_for_signs)
        further()
    corruptions = None
    if spec.corruptions:
        corruptions = corruption_accuracy(model, bench, extras.setdefault("corruptions", {}), on_each=further)
    clean, robust = clean_mask(ledger, bench), robust_mask(ledger, bench, entries, headline)
    side = Side.model_validate(
        {
            **summarise(ledger, bench, suite, headline).model_dump(),
            "curve": extras["curve"],
            "diagnosis": extras.get("diagnosis"),
            "corruptions": corruptions,
        }
    )
    return Outcome(side, clean, robust, predict_once(model, bench, ledger), ledger.tallies)


def preview(model: Classifier, bench: Bench, headline: ThreatModel) -> Side:
    """A first answer on a few hundred images, within seconds: clean, FGSM, PGD-20."""
    few = replace(bench, images=bench.images.choose(some(bench.images, PREVIEW_IMAGES, bench.seed)))
    suite = Suite((Entry(FGSM(), headline), Entry(PGD(steps=20, step_size="eps/4"), headline)))
    return summarise(evaluate(model, few, suite), few, suite, headline)


def ledger_path(state: Path, side: str) -> Path:
    """Where a side's evaluation in progress is kept."""
    return state / f"evaluation-{side}.npz"
