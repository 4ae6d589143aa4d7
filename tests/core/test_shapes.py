"""Suites on models of every kind: few and many classes, grey and colour, small and large, nothing or one image left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.attacks.apgd import APGD
from core.attacks.apgd_t import TargetedAPGD
from core.attacks.cw import CW
from core.attacks.fab import FAB
from core.attacks.fab_t import TargetedFAB
from core.attacks.noise import Noise
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.curve import accuracy_curve
from core.data import ImageSet
from core.diagnose import diagnose
from core.evaluate import Bench, evaluate
from core.losses import dlr, margin, targeted_dlr, targeted_margin
from core.models.classifier import Classifier
from core.suites import Entry, Suite
from core.summary import summarise
from core.threat import ThreatModel

CPU = torch.device("cpu")
EPS = {"linf": 0.03, "l2": 0.5, "l1": 5.0}


def entries(threat):
    attacks = [
        APGD(name="apgd-ce", steps=6),
        APGD(name="apgd-dlr", steps=6),
        PGD(steps=5, restarts=2, loss="margin"),
        TargetedAPGD(steps=6),
        FAB(steps=3),
        TargetedFAB(steps=3),
        Noise(draws=3),
        Square(queries=30),
    ]
    if threat.norm == "l2":
        attacks.append(CW(steps=5, searches=2))
    return tuple(Entry(attack, threat) for attack in attacks)


def random_model(classes: int, channels: int, side: int) -> Classifier:
    torch.manual_seed(0)
    stride = max(2, side // 14)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 5, stride=stride),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(96, classes),
    )
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=2.0)
    return Classifier(net).eval()


def labelled(model: Classifier, channels: int, side: int, count: int, wrong: int = 1) -> ImageSet:
    """Random images with the model's own predictions as labels, but for the last few."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), np.uint8)
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels) / 255)
    labels = logits.argmax(1)
    labels[count - wrong :] = (labels[count - wrong :] + 1) % logits.shape[1]
    return ImageSet(pixels, labels.numpy(), np.arange(count))


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize(
    ("classes", "channels", "side", "count"),
    [(2, 1, 28, 9), (3, 3, 32, 9), (4, 1, 31, 5), (1000, 3, 64, 4), (5, 3, 224, 2), (10, 1, 28, 1)],
)
def test_every_attack_runs_and_is_verified(norm, classes, channels, side, count):
    model = random_model(classes, channels, side)
    images = labelled(model, channels, side, count, wrong=min(1, count - 1))
    bench, threat = Bench(images, classes, 0, 4, CPU), ThreatModel(norm=norm, eps=EPS[norm])
    suite = Suite(entries(threat))
    ledger = evaluate(model, bench, suite)
    side_of_report = summarise(ledger, bench, suite, threat)
    assert side_of_report.clean.correct == count - min(1, count - 1)
    assert len(side_of_report.attacks) == len(suite.entries)
    curve = accuracy_curve(model, bench, ledger, suite.entries, threat)
    assert curve.accuracy[0] == side_of_report.clean.accuracy
    assert curve.accuracy[10] <= side_of_report.robust.accuracy


@pytest.mark.parametrize(("classes", "words"), [(2, "3 classes"), (3, None), (10, None)])
def test_dlr_says_when_it_adapts(classes, words):
    said = APGD(name="apgd-dlr").adapted(classes)
    assert (said is None) == (words is None)
    assert words is None or words in said


@pytest.mark.parametrize(
    ("classes", "words"), [(2, "1 target(s)"), (3, "needs 4 classes"), (9, "8 target(s)"), (10, None)]
)
def test_targets_say_when_they_adapt(classes, words):
    said = TargetedAPGD().adapted(classes)
    assert (said is None) == (words is None)
    assert words is None or words in said
    assert len(TargetedAPGD().work(classes)) == len(TargetedFAB().work(classes)) == min(9, classes - 1)


def test_the_report_carries_the_adaptation():
    model = random_model(2, 1, 28)
    bench = Bench(labelled(model, 1, 28, 4), 2, 0, 4, CPU)
    threat = ThreatModel(norm="linf", eps=0.01)
    suite = Suite((Entry(TargetedAPGD(steps=2), threat), Entry(PGD(steps=2), threat)))
    adapted = [attack.adapted for attack in summarise(evaluate(model, bench, suite), bench, suite, threat).attacks]
    assert "targeted margin" in adapted[0]
    assert adapted[1] is None


def test_the_ratio_losses_by_hand():
    z = torch.tensor([[4.0, 1.0, 3.0, 0.0], [1.0, 5.0, 2.0, 4.0]])
    y = torch.tensor([0, 0])
    assert torch.allclose(dlr(z, y), torch.tensor([-(4.0 - 3) / (4 - 1), (5.0 - 1) / (5 - 2)]))
    pairs = torch.tensor([[0, 3], [0, 2]])
    assert torch.allclose(targeted_dlr(z, pairs), torch.tensor([(0 - 4.0) / (4 - 0.5), (2 - 1.0) / (5 - 1.5)]))
    assert torch.equal(dlr(z[:, :2], y), margin(z[:, :2], y))
    assert torch.equal(targeted_dlr(z[:, :3], pairs % 3), targeted_margin(z[:, :3], pairs % 3))
    assert torch.allclose(dlr(1000 * z, y), dlr(z, y))


@pytest.mark.parametrize("norm", EPS)
def test_nothing_survives_eps_one_and_everything_eps_zero(norm):
    model = random_model(3, 1, 28)
    bench = Bench(labelled(model, 1, 28, 12), 3, 0, 5, CPU)
    whole_box = ThreatModel(norm=norm, eps={"linf": 1.0, "l2": 28.0, "l1": 784.0}[norm])
    for threat, expected in ((whole_box, 0), (ThreatModel(norm=norm, eps=0), 11)):
        suite = Suite((Entry(APGD(name="apgd-ce", steps=40), threat), *entries(threat)), cascade=True)
        ledger = evaluate(model, bench, suite)
        assert summarise(ledger, bench, suite, threat).robust.correct == expected
        signs = diagnose(model, bench, ledger, suite.entries, threat)
        assert not [sign.code for sign in signs if sign.raised and sign.severity == "masking"]


def test_a_model_that_is_never_right_is_evaluated_too():
    model = random_model(3, 1, 28)
    bench = Bench(labelled(model, 1, 28, 4, wrong=4), 3, 0, 4, CPU)
    threat = ThreatModel(norm="linf", eps=0.1)
    suite = Suite(entries(threat), cascade=True)
    ledger = evaluate(model, bench, suite)
    assert summarise(ledger, bench, suite, threat).robust.correct == 0
    assert diagnose(model, bench, ledger, suite.entries, threat)
    assert set(accuracy_curve(model, bench, ledger, suite.entries, threat).accuracy) == {0.0}
