"""Each claim says that it holds where it does, and that it does not where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from core.report import EpochCurve
from recipes.claims import CLAIMS
from recipes.correct import Correct
from recipes.results import Result, UnderAttack
from recipes.studies import studies


def correct(share: float, total: int = 1000) -> Correct:
    """The first images are correct: of two of these, all that one loses the other has."""
    return Correct.of(np.arange(total) < round(total * share))


def result(name: str, clean: float, robust: float, corruptions: float | None = None) -> Result:
    curve = EpochCurve(
        epoch=1, lr=0, train_loss=0, train_clean=1, train_robust=robust, held_out_clean=clean, held_out_robust=robust,
        held_out_fgsm=robust, strength=1, seconds=1,
    )  # fmt: skip
    attacks = tuple(UnderAttack(name="pgd", params={}, eps=eps, correct=correct(robust)) for eps in (0.1, 0.3))
    return Result(
        recipe=f"folder/{name}", title="t", defense="aft", optimizer="", seed=0, spec_sha256="", commit=None,
        samples=1000, images_sha256="", before_clean=correct(0.9), clean=correct(clean), attacks=attacks,
        robust=correct(robust), standard=None, corruptions_hou=corruptions, verdict="robust", stopped=None,
        selected_epoch=1, curves=(curve,), fb=1, choosing_fb=1, seconds=1, machine="", torch="",
    )  # fmt: skip


OTHERS = [result(name, 0.8, 0.5) for name in ("pgd-at", "free-at", "fast-at", "yopo", "atta", "trades")]
NATURAL = result("natural", 0.9, 0.0)


def optimizers(*robust: float) -> list[Result]:
    names = ("adam", "rmsprop", "sgd")
    return [result(f"optimizer-{name}", 0.9, value) for name, value in zip(names, robust, strict=True)]


def schedules(ours: float, long: float = 0.4) -> list[Result]:
    names = {"slow-start-fast-decay": ours, "step-1": 0.5, "step-10": long}
    return [result(f"schedule-{name}", 0.3 + value, value) for name, value in names.items()]


def by_p(*robust: float) -> list[Result]:
    return [result(f"dra-p-{i}-of-3", 0.9 - 0.05 * i, value) for i, value in enumerate(robust)]


def swapped(dra: float) -> list[Result]:
    frames = ("madry", "trades", "ours")
    return [result(f"swap-{f}-{a}", 0.8, value) for f in frames for a, value in (("pgd", 0.5), ("dra", dra))]


def corrupted(dra: float, before: float = 0.6) -> list[Result]:
    after = result("dra", 0.8, 0.1, corruptions=dra).model_copy(update={"before_corruptions_hou": before})
    return [result("natural", 0.8, 0.0, corruptions=0.6), after]


CASES = {
    "aft_is_enough": ([*OTHERS, result("aft", 0.8, 0.6)], [*OTHERS, result("aft", 0.8, 0.4)]),
    "dra_keeps_clean_accuracy": (
        [NATURAL, *OTHERS, result("dra", 0.9, 0.3)],
        [NATURAL, *OTHERS, result("dra", 0.85, 0.3)],
    ),
    "patch_augment_is_robust": (optimizers(0.55, 0.5, 0.5), optimizers(0.0, 0.5, 0.5)),
    "long_plateaus_overfit": (schedules(0.5, long=0.4), schedules(0.5, long=0.6)),
    "slow_start_fast_decay_is_best": (schedules(0.6), schedules(0.4)),
    "robustness_grows_with_p": (by_p(0.0, 0.3, 0.4), by_p(0.4, 0.3, 0.0)),
    "dra_attack_helps": (swapped(0.6), swapped(0.4)),
    "dra_helps_against_corruptions": (corrupted(0.7), corrupted(0.5)),
}


ALL = [claim for claims in CLAIMS.values() for claim in claims]


@pytest.mark.parametrize("claim", [claim for claim in ALL if claim.__name__ in CASES], ids=lambda c: c.__name__)
def test_a_claim_is_judged_by_the_numbers(claim):
    holds, fails = CASES[claim.__name__]
    assert "**Holds**" in claim(holds)
    assert "**Does not hold**" in claim(fails)


def test_that_one_matters_cannot_be_refuted():
    (decides,) = (claim for claim in ALL if claim.__name__ not in CASES)
    assert "**Holds**" in decides(optimizers(0.5372, 0.5008, 0.3))
    assert "**Undecided**" in decides(optimizers(0.5, 0.5, 0.499))
    assert "**Undecided**" in decides(optimizers(0.04, 0.0, 0.0)), "where nobody is robust, nothing can be told"


UNDECIDED = {
    "aft_is_enough": [*OTHERS, result("aft", 0.8, 0.504)],
    "dra_keeps_clean_accuracy": [NATURAL, *OTHERS, result("dra", 0.888, 0.3)],
    "patch_augment_is_robust": optimizers(0.51, 0.5, 0.5),
    "long_plateaus_overfit": schedules(0.5, long=0.497),
    "slow_start_fast_decay_is_best": schedules(0.502),
    "robustness_grows_with_p": by_p(0.0, 0.0, 0.0),
    "dra_attack_helps": swapped(0.503),
    "dra_helps_against_corruptions": corrupted(0.62),
}


@pytest.mark.parametrize("claim", [claim for claim in ALL if claim.__name__ in UNDECIDED], ids=lambda c: c.__name__)
def test_what_chance_may_have_made_decides_nothing(claim):
    assert "**Undecided**" in claim(UNDECIDED[claim.__name__])


def test_a_gain_over_clean_training_alone_is_no_gain_over_what_came_in():
    (claim,) = CLAIMS["cifar10"]
    assert "**Undecided**" in claim(corrupted(0.7, before=0.69))
    assert "**Does not hold**" in claim(corrupted(0.7, before=0.8))


def test_no_robustness_is_no_gain():
    dra = CLAIMS["fashion-mnist"][1]
    assert "**Does not hold**" not in dra([NATURAL, *OTHERS, result("dra", 0.9, 0.001)])
    assert "**Holds**" not in dra([NATURAL, *OTHERS, result("dra", 0.9, 0.001)])


def test_every_claim_belongs_to_a_study():
    assert set(CLAIMS) <= {study.name for study in studies()}
