"""Is the robustness real? Computable signs that it is not, each with its evidence, threshold and a sentence.

The checks follow Carlini et al. 2019, https://arxiv.org/abs/1902.06705, Pintor et al. 2022,
https://arxiv.org/abs/2106.09947, and AutoAttack's own. A sign of masking does not prove that a model is not robust; it
says that the number is not to be believed until somebody finds out why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from core import signs
from core.attacks.apgd import APGD
from core.attacks.apgd_t import TargetedAPGD
from core.attacks.base import Attack
from core.attacks.fgsm import FGSM
from core.attacks.noise import Noise
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.attacks.transfer import Transfer
from core.data import FEW, some
from core.evaluate import Bench, survivors
from core.models.classifier import Classifier
from core.planted import plant
from core.report import Side, Sign
from core.signs import share
from core.suites import Entry
from core.summary import clean_mask, counts
from core.tally import Ledger, Mask
from core.threat import ThreatModel

_PLANTED = 12


@dataclass(frozen=True)
class Case:
    """A model to be doubted: some of its images, and what the suite found out about them."""

    model: Classifier
    bench: Bench
    entries: tuple[Entry, ...]
    headline: ThreatModel
    correct: Mask
    robust: Mask
    randomised: bool
    deployed: Classifier | None
    surrogate: Classifier | None
    before: Side | None

    def standing(self, candidates: Mask, attack: Attack, threat: ThreatModel | None = None) -> Mask:
        """Which of the candidates are correct under an attack, within the headline's ball if no other is given."""
        return survivors(self.model, self.bench, candidates, attack, threat or self.headline)


def diagnose(
    model: Classifier,
    bench: Bench,
    ledger: Ledger,
    entries: tuple[Entry, ...],
    headline: ThreatModel,
    *,
    deployed: Classifier | None = None,
    surrogate: Classifier | None = None,
    before: Side | None = None,
) -> tuple[Sign, ...]:
    """All checks on 200 images drawn by the seed, the raised ones and the others.

    Args:
        deployed: the checkpoint that ships, loaded anew; None skips the comparison.
        surrogate: another model whose adversarial examples are tried on this one; None skips that.
        before: the model before hardening under the same suite; None if this is it.
    """
    rows = some(bench.images, FEW, bench.seed)
    correct = clean_mask(ledger, bench)
    robust = correct.copy()
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if counts(entry, headline):
            robust &= ~tally.fooled
    part = replace(bench, images=bench.images.choose(rows))
    case = Case(
        model, part, entries, headline, correct[rows], robust[rows], ledger.randomised, deployed, surrogate, before
    )
    square = _square_of_the_suite(ledger, entries, bench)
    return (*_checks(case), *([square] if square is not None else []))


def _checks(case: Case) -> Iterator[Sign]:
    yield signs.other_weights(case.model, case.deployed, case.bench, randomised=case.randomised)
    yield signs.training_mode(case.model)
    yield signs.undefended_survives(case.before)
    yield signs.randomised(case.randomised)
    yield from signs.of_gradients(case.model, case.bench, case.correct, case.headline)
    yield signs.short_reach(case.entries, case.headline)
    if case.headline.eps > 0 and case.correct.any():
        yield from _of_attacks(case)


def _of_attacks(case: Case) -> Iterator[Sign]:
    total = len(case.correct)
    weakest = _gradient_attack(case)
    base = case.standing(case.correct, weakest)
    longer = case.standing(base, _with_more_steps(weakest))
    more = int((base & ~longer).sum())
    yield signs.still_climbing(case.model, case.bench, case.correct, _own_gradient_attack(case), case.headline)
    evidence = f"more fall to {weakest.name} with another restart and up to five times its steps"
    yield share("more-steps-help", "weak", more, total, 0.05, evidence, "it had not converged")
    strong = case.standing(case.standing(longer, APGD(name="apgd-ce", steps=50)), TargetedAPGD(steps=50, targets=3))
    more = int((case.robust & ~strong).sum())
    evidence = f"survived the suite, as {case.robust.sum()} did, and fall to short runs of APGD"
    yield share("suite-too-weak", "weak", more, total, 0.1, evidence, "the suite overstates the robust accuracy by far")
    white = strong & case.robust
    gradients_fail = "gradients do not show the way that is there"
    others: list[tuple[str, Attack, str]] = [
        ("one-step-beats-many", FGSM(), "FGSM, a single step"),
        ("noise-beats-gradients", Noise(draws=100), "uniform noise"),
        ("black-box-beats-gradients", Square(queries=500), "the Square attack, which sees no gradient"),
    ]
    if case.surrogate is not None:
        transfer = Transfer(surrogate=case.surrogate)
        others.append(("transfer-beats-gradients", transfer, "examples made on the other side's model"))
    for code, attack, words in others:
        fooled = int((white & ~case.standing(white, attack)).sum())
        evidence = f"withstood gradient attacks, as {white.sum()} did, and fall to {words}"
        yield share(code, "masking", fooled, total, 0.002, evidence, gradients_fail)
    yield from _of_radius(case, base, weakest)
    planted = plant(case.model, case.bench, weakest, case.headline, count=_PLANTED)
    yield signs.planted_missed(planted.planted, planted.found, weakest.name)


def _of_radius(case: Case, base: Mask, attack: Attack) -> Iterator[Sign]:
    total = len(case.correct)
    everything = _whole_box(case)
    left = case.standing(case.correct, APGD(name="apgd-ce", steps=50), everything)
    evidence = f"survive at {everything.norm} eps {everything.eps:g}, where any image may become any other"
    yield share("robust-without-bound", "masking", int(left.sum()), total, 0.05, evidence, "the attack itself fails")
    double = ThreatModel(norm=case.headline.norm, eps=min(2 * case.headline.eps, everything.eps))
    gained = int(case.standing(case.correct, attack, double).sum()) - int(base.sum())
    evidence = f"more survive {attack.name} at twice eps than at eps"
    yield share("accuracy-rises-with-eps", "masking", gained, total, 0.02, evidence, "a larger ball holds the smaller")


def _whole_box(case: Case) -> ThreatModel:
    """A ball that holds every image of the box."""
    pixels = int(np.prod(case.bench.images.pixels.shape[1:]))
    radius = {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}[case.headline.norm]
    return ThreatModel(norm=case.headline.norm, eps=radius)


def _own_gradient_attack(case: Case) -> Attack:
    """The suite's first attack by many gradient steps that counts; PGD-20 where it has none."""
    for entry in case.entries:
        if isinstance(entry.attack, (APGD, PGD)) and counts(entry, case.headline):
            return entry.attack
    return PGD(steps=20, step_size="eps/4")


def _gradient_attack(case: Case) -> Attack:
    """The suite's own attack by many gradient steps if it can reach eps; else PGD-20.

    One that cannot reach eps has a sign of its own; what it misses says nothing of the model.
    """
    own = _own_gradient_attack(case)
    reaches = signs.reach_of(own, case.headline) >= case.headline.eps * (1 - 1e-6)
    return own if reaches else PGD(steps=20, step_size="eps/4")


def _with_more_steps(attack: Attack) -> Attack:
    if isinstance(attack, (APGD, PGD)):
        more = max(attack.steps, min(5 * attack.steps, 200))
        return attack.model_copy(update={"steps": more, "restarts": attack.restarts + 1})
    return attack


def _square_of_the_suite(ledger: Ledger, entries: tuple[Entry, ...], bench: Bench) -> Sign | None:
    """AutoAttack's own check on all images: did Square find what the gradient attacks before it did not?"""
    before = np.zeros(len(bench.images), bool)
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if isinstance(entry.attack, Square):
            fooled = int((tally.fooled & ~before).sum())
            return share(
                "suite-square-beats-gradients", "masking", fooled, len(before), 0.002,
                "withstood the suite's gradient attacks and fall to its Square attack, which sees no gradient",
                "gradients do not show all of the ways that are there",
            )  # fmt: skip
        before |= tally.fooled
    return None
