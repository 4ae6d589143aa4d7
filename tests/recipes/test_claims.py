"""Each claim says that it holds where it does, and that it does not where it does not."""

from __future__ import annotations

import pytest

from core.report import Count, EpochCurve
from recipes.claims import CLAIMS, above
from recipes.results import AttackAccuracy, Result
from recipes.studies import studies


def result(name: str, clean: float, robust: float, corruptions: float | None = None) -> Result:
    curve = EpochCurve(
        epoch=1, lr=0, train_loss=0, train_clean=1, train_robust=robust, held_out_clean=clean, held_out_robust=robust,
        held_out_fgsm=robust, strength=1, seconds=1,
    )  # fmt: skip
    count = Count.of(round(1000 * robust), 1000)
    return Result(
        recipe=f"folder/{name}", title="t", method=None, defense="aft", seed=0, spec_sha256="", published=(),
        before_clean=Count.of(900, 1000), clean=Count.of(round(1000 * clean), 1000),
        attacks=(AttackAccuracy(name="pgd", eps=0.3, count=count),), robust=count, standard=None,
        corruptions_hou=corruptions, verdict="robust", stopped=None, selected_epoch=1, curves=(curve,), fb=1,
        seconds=1, machine="", torch="",
    )  # fmt: skip


OTHERS = [result(name, 0.8, 0.5) for name in ("pgd-at", "free-at", "fast-at", "yopo", "atta", "trades")]


def optimizers(*robust: float) -> list[Result]:
    names = ("adam", "rmsprop", "sgd")
    return [result(f"optimizer-{name}", 0.9, value) for name, value in zip(names, robust, strict=True)]


def schedules(ours: float) -> list[Result]:
    return [result("schedule-slow-start-fast-decay", 0.8, ours), result("schedule-step-1", 0.8, 0.5)]


def by_p(*robust: float) -> list[Result]:
    return [result(f"dra-p-{i}-of-3", 0.9 - 0.05 * i, value) for i, value in enumerate(robust)]


def swapped(dra: float) -> list[Result]:
    frames = ("madry", "trades", "ours")
    return [result(f"swap-{f}-{a}", 0.8, value) for f in frames for a, value in (("pgd", 0.5), ("dra", dra))]


def corrupted(dra: float) -> list[Result]:
    return [result("natural", 0.8, 0.0, corruptions=0.6), result("dra", 0.8, 0.1, corruptions=dra)]


CASES = {
    "aft_is_enough": ([*OTHERS, result("aft", 0.8, 0.6)], [*OTHERS, result("aft", 0.8, 0.4)]),
    "dra_keeps_clean_accuracy": ([*OTHERS, result("dra", 0.9, 0.3)], [*OTHERS, result("dra", 0.85, 0.3)]),
    "patch_augment_is_robust": (optimizers(0.55, 0.5, 0.5), optimizers(0.0, 0.5, 0.5)),
    "optimizer_decides": (optimizers(0.5, 0.4, 0.3), optimizers(0.01, 0.0, 0.0)),
    "slow_start_fast_decay_is_best": (schedules(0.6), schedules(0.4)),
    "robustness_grows_with_p": (by_p(0.0, 0.3, 0.4), by_p(0.4, 0.3, 0.0)),
    "dra_attack_helps": (swapped(0.6), swapped(0.4)),
    "dra_helps_against_corruptions": (corrupted(0.7), corrupted(0.5)),
}


@pytest.mark.parametrize("claim", [claim for claims in CLAIMS.values() for claim in claims], ids=lambda c: c.__name__)
def test_a_claim_is_judged_by_the_numbers(claim):
    holds, fails = CASES[claim.__name__]
    assert "**Holds**" in claim(holds)
    assert "**Does not hold**" in claim(fails)


def count(correct: int, total: int = 1000) -> Count:
    return Count.of(correct, total)


def test_a_difference_that_chance_may_have_made_decides_nothing():
    assert above(count(500), count(400)) is True
    assert above(count(400), count(500)) is False
    assert above(count(500), count(490)) is None
    assert above(count(200, 400), count(180, 400)) is None
    assert "**Undecided**" in CLAIMS["schedules"][0](schedules(0.51))
    assert "**Undecided**" in CLAIMS["attack-swap"][0](swapped(0.51))
    flat = [result(f"dra-p-{i}", 0.9, 0.0) for i in range(3)]
    assert "**Undecided**" in CLAIMS["dra-p"][0](flat), "nothing grows where all is zero"


def test_every_claim_belongs_to_a_study():
    assert set(CLAIMS) <= {study.name for study in studies()}
