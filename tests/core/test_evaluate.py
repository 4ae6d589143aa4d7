"""The evaluation loop: worst case image by image, nothing unverified counts, bad models are named."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from core.attacks.base import Attack, all_alike
from core.attacks.fgsm import FGSM
from core.attacks.pgd import PGD
from core.data import ImageSet
from core.errors import BadLogitsError
from core.evaluate import Bench, evaluate, survivors, verify
from core.models.classifier import Classifier
from core.report import Change, Count, Curve, PairedChange, Side, Sign
from core.suites import Entry, Suite
from core.summary import summarise
from core.threat import ThreatModel
from core.verdict import judge

CPU = torch.device("cpu")
EPS = ThreatModel(norm="linf", eps=0.05)


@pytest.fixture
def images(arrays):
    return ImageSet(arrays["x_test"][:60, None], arrays["y_test"][:60].astype(np.int64), np.arange(60))


def bench_of(images, classes=10, batch_size=32):
    return Bench(images, classes, 0, batch_size, CPU)


def run(network, images, entries, headline=EPS, classes=10, batch_size=32, cascade=False):
    bench, suite = bench_of(images, classes, batch_size), Suite(tuple(entries), cascade=cascade)
    return summarise(evaluate(network, bench, suite), bench, suite, headline)


class Flips(Attack):
    """Turns the images with even ids black, or those with odd ids."""

    name: Literal["flips"] = "flips"
    parity: int = 0

    def craft(self, model, x, y, threat, rng, run):
        dark = (torch.arange(len(x)) % 2 == self.parity).view(-1, 1, 1, 1)
        return all_alike(torch.where(dark, torch.zeros_like(x), x), 1)

    def work(self, num_classes):
        return [1]


class Bright(nn.Module):
    """Class 1 if the image has any light, else class 0; never wrong on lit images labelled 1."""

    def forward(self, x):
        lit = x.flatten(1).amax(1)
        return torch.stack([0.001 - lit, lit], 1)


@pytest.fixture
def lit():
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(100, 256, (40, 1, 8, 8), np.uint8), np.ones(40, np.int64), np.arange(40))


def test_robust_is_the_worst_case_per_image_not_the_least_accuracy(lit):
    everything = ThreatModel(norm="linf", eps=1)
    suite = [Entry(Flips(parity=0), everything), Entry(Flips(parity=1), everything)]
    outcome = run(Classifier(Bright()), lit, suite, everything, classes=2, batch_size=40)
    assert [attack.accuracy for attack in outcome.attacks] == [0.5, 0.5]
    assert outcome.robust.accuracy == 0
    assert outcome.clean.accuracy == 1


def test_wrong_images_count_in_the_denominator_but_are_not_attacked(network, images):
    outcome = run(network, images, [Entry(FGSM(), EPS)])
    assert outcome.attacks[0].total == 60
    wrong = 60 - outcome.clean.correct
    assert wrong > 0
    assert outcome.attacks[0].attacked == 60 - wrong
    network.cost.fb = 0
    bench = bench_of(images)
    survivors(network, bench, evaluate(network, bench, Suite(())).predictions == bench.labels, FGSM(), EPS)
    assert network.cost.fb == 60 - wrong


def test_unbounded_attacks_and_other_eps_are_shown_but_not_counted(network, images):
    from core.attacks.dra import DRA

    larger = ThreatModel(norm="linf", eps=0.2)
    outcome = run(network, images, [Entry(FGSM(), EPS), Entry(DRA(mean_change=0.2, p=1), EPS), Entry(FGSM(), larger)])
    assert [attack.counted for attack in outcome.attacks] == [True, False, False]
    assert outcome.robust.correct == outcome.attacks[0].correct


def test_eps_zero_is_clean_and_eps_one_leaves_nothing(network, images):
    for eps, expected in ((0, None), (1, 0)):
        threat = ThreatModel(norm="linf", eps=eps)
        outcome = run(network, images, [Entry(PGD(steps=40, step_size="eps/10"), threat)], threat)
        assert outcome.robust.correct == (outcome.clean.correct if expected is None else expected)


def test_one_image(network, images):
    outcome = run(network, images.choose(np.array([3])), [Entry(FGSM(), EPS)])
    assert outcome.clean.total == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x + 0.2, "over eps"),
        (lambda x: x * torch.nan, "not finite"),
        (lambda x: x - 0.04 - x.amax(), "not in"),
    ],
)
def test_a_broken_attack_is_a_fault_not_a_result(spoil, words, network, batch):
    x, y, _ = batch
    with pytest.raises(AssertionError, match=words):
        verify(network, spoil(x * 0.5), x * 0.5, y, EPS.norm, EPS.eps)


def test_an_l1_norm_may_exceed_eps_by_rounding_and_no_more(network, batch):
    x, y, _ = batch
    x, eps = x * 0.5 + 0.25, 0.0007 * 784
    verify(network, x + 0.0007, x, y, "l1", eps)
    with pytest.raises(AssertionError, match="over eps"):
        verify(network, x + 0.0007, x, y, "l1", eps * 0.999)


class Broken(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(torch.zeros(len(x), 10))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z[:, :7], r"shape \(32, 7\) for 32 images; expected \(32, 10\)"),
        (lambda z: z[0], r"shape \(10,\)"),
        (lambda z: z + torch.nan, "NaN or infinite"),
        (lambda z: z + torch.inf, "NaN or infinite"),
        (lambda z: {"logits": z}, "returned dict"),
        (lambda z: (z + torch.arange(10)).softmax(1), "returned probabilities"),
    ],
)
def test_models_that_return_no_logits_are_named(change, words, images):
    with pytest.raises(BadLogitsError, match=words):
        run(Classifier(Broken(change)), images, [])


def side(correct: int, clean: int = 900, diagnosis: tuple[Sign, ...] | None = ()) -> Side:
    return Side(clean=Count.of(clean, 1000), attacks=(), robust=Count.of(correct, 1000), diagnosis=diagnosis)


def sign(severity, raised=True):
    return Sign(code="x", raised=raised, severity=severity, value=None, threshold=None, sentence="because")


def change(gained, lost):
    return Change(clean=PairedChange.of(0, 0, 1000), robust=PairedChange.of(gained, lost, 1000))


@pytest.mark.parametrize(
    ("before", "after", "paired", "kind"),
    [
        (side(0), side(550), change(550, 0), "unverified"),
        (side(0), side(20), change(20, 0), "brittle"),
        (side(400), side(405), change(30, 25), "brittle"),
        (side(400), side(300), change(0, 100), "brittle"),
        (side(0), None, None, "brittle"),
        (side(500), None, None, "unverified"),
    ],
)
def test_the_verdict_never_says_more_than_the_numbers(before, after, paired, kind):
    verdict = judge(suite="quick", threat=EPS, chance=0.1, before=before, after=after, change=paired)
    assert verdict.kind == kind
    assert verdict.reasons


@pytest.mark.parametrize(
    ("suite", "diagnosis", "kind"),
    [
        ("standard", (), "robust"),
        ("strict", (sign("note"), sign("masking", raised=False)), "robust"),
        ("quick", (), "unverified"),
        ("standard", None, "unverified"),
        ("standard", (sign("weak"),), "unverified"),
        ("standard", (sign("masking"),), "suspect"),
        ("quick", (sign("masking"), sign("weak")), "suspect"),
    ],
)
def test_robust_takes_a_strong_suite_and_a_clean_diagnosis(suite, diagnosis, kind):
    after = side(550, diagnosis=diagnosis)
    verdict = judge(suite=suite, threat=EPS, chance=0.1, before=side(0), after=after, change=change(550, 0))
    assert verdict.kind == kind
    assert judge(suite=suite, threat=EPS, chance=0.1, before=after, after=None, change=None).kind == kind


def test_few_images_show_no_lack_of_robustness():
    """4 of 10 may be far above a guess, and a gain of half of ten images is no proof that there is none."""
    before, after = (Side(clean=Count.of(9, 10), attacks=(), robust=Count.of(n, 10), diagnosis=()) for n in (0, 4))
    gain = Change(clean=PairedChange.of(0, 0, 10), robust=PairedChange.of(4, 0, 10))
    assert gain.robust.p_value > 0.05
    verdict = judge(suite="standard", threat=EPS, chance=0.145, before=before, after=after, change=gain)
    assert verdict.kind == "unverified"
    assert "10 image(s) are too few" in verdict.reasons[0]
    none = judge(suite="standard", threat=EPS, chance=0.145, before=before, after=None, change=None)
    assert none.kind == "brittle", "none of ten is little for sure"


@pytest.mark.parametrize(
    ("gained", "lost", "images", "kind", "remedy"),
    [
        (28, 17, 100, "unverified", "evaluation.samples=300 "),  # p = 0.14, and 24 points may be in it
        (30, 25, 1000, "brittle", None),  # p = 0.6, and more than 2 points are not
        (290, 240, 1000, "robust", None),
    ],
)
def test_a_gain_that_few_images_cannot_show_is_not_called_none(gained, lost, images, kind, remedy):
    count, of = Count.of(images // 2, images), Count.of(images, images)
    after = Side(clean=of, attacks=(), robust=count, diagnosis=())
    found = Change(clean=PairedChange.of(0, 0, images), robust=PairedChange.of(gained, lost, images))
    verdict = judge(suite="standard", threat=EPS, chance=0.1, before=after, after=after, change=found)
    assert verdict.kind == kind
    assert "gain" in verdict.reasons[0] or kind == "robust"
    assert not remedy or remedy in verdict.remedies[0]


@pytest.mark.parametrize(("correct", "words"), [(0, "not above what a guess"), (120, "not clearly above what a guess")])
def test_chance_is_not_undercut_from_above(correct, words):
    verdict = judge(suite="quick", threat=EPS, chance=0.1, before=side(correct), after=None, change=None)
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(("beyond", "kind"), [(0, "robust"), (2, "robust"), (3, "unverified")])
def test_what_the_curve_finds_beyond_the_suite_counts_against_it(beyond, kind):
    curve = Curve(eps=(0.0, 0.1), accuracy=(0.9, 0.5), images=200, beyond_suite=beyond)
    after = side(550).model_copy(update={"curve": curve})
    verdict = judge(suite="standard", threat=EPS, chance=0.1, before=side(0), after=after, change=change(550, 0))
    assert verdict.kind == kind


@pytest.mark.parametrize(("leaked", "kind"), [(0.0, "robust"), (0.005, "robust"), (0.5, "unverified")])
def test_images_that_were_trained_on_prove_nothing(leaked, kind):
    verdict = judge(
        suite="standard", threat=EPS, chance=0.1, before=side(0), after=side(550), change=change(550, 0), leaked=leaked
    )
    assert verdict.kind == kind


@pytest.mark.parametrize(
    ("threat", "chance", "total", "kind"),
    [
        (EPS, 0.1, 1000, "robust"),
        (ThreatModel(norm="linf", eps=0), 0.1, 1000, "unverified"),
        (EPS, 0.1, 99, "unverified"),
        (EPS, 0.1, 1, "unverified"),
        (EPS, 0.9, 1000, "brittle"),
    ],
    ids=["enough", "eps 0", "few images", "one image", "one class dominates"],
)
def test_nothing_shown_is_not_robust(threat, chance, total, kind):
    """All images survive, but that may mean nothing."""
    count = Count.of(int(0.9 * total) or 1, total)
    only = Side(clean=count, attacks=(), robust=count, diagnosis=())
    verdict = judge(suite="standard", threat=threat, chance=chance, before=only, after=None, change=None)
    assert verdict.kind == kind
