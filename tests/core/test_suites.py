"""Suites as cascades: what is attacked when, what is saved, and that a killed evaluation goes on where it was."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from core.attacks.apgd import APGD
from core.attacks.apgd_t import TargetedAPGD
from core.attacks.base import Attack, all_alike
from core.attacks.fab_t import TargetedFAB
from core.attacks.fgsm import FGSM
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.curve import accuracy_curve
from core.data import ImageSet
from core.evaluate import Bench, evaluate, is_randomised
from core.models.base import ImageShape
from core.models.classifier import Classifier
from core.rng import Rng
from core.suites import SUITES, Entry, Suite, standard
from core.summary import robust_mask, summarise, worst_predictions
from core.tally import Ledger
from core.threat import ThreatModel

CPU = torch.device("cpu")
LINF = ThreatModel(norm="linf", eps=0.02)
SHORT = Suite(
    tuple(
        Entry(attack, LINF)
        for attack in (
            APGD(name="apgd-ce", steps=1),
            TargetedAPGD(steps=4, targets=2),
            TargetedFAB(steps=4, targets=2),
            Square(queries=60),
        )
    ),
    cascade=True,
)


@pytest.fixture
def bench(arrays):
    images = ImageSet(arrays["x_test"][:60, None], arrays["y_test"][:60].astype(np.int64), np.arange(60))
    return Bench(images, 10, 0, 16, CPU)


def test_a_cascade_attacks_only_what_is_left_and_its_accuracy_is_cumulative(network, bench):
    ledger = evaluate(network, bench, SHORT)
    side = summarise(ledger, bench, SHORT, LINF)
    standing = side.clean.correct
    for attack, tally in zip(side.attacks, ledger.tallies, strict=True):
        assert attack.cumulative
        assert attack.attacked == standing
        standing -= attack.fooled
        assert attack.correct == standing
        assert (tally.fooled <= tally.attacked).all()
    assert side.robust.correct == standing
    assert 0 < standing < side.clean.correct
    assert sum(attack.fooled > 0 for attack in side.attacks) >= 2


def test_every_success_has_its_norm_label_and_queries(network, bench):
    ledger = evaluate(network, bench, SHORT)
    for tally in ledger.tallies:
        assert (tally.distance[tally.fooled] <= 0.02 * (1 + 1e-4)).all()
        assert np.isnan(tally.distance[~tally.fooled]).all()
        assert (tally.prediction[tally.fooled] != bench.labels[tally.fooled]).all()
        assert (tally.prediction[~tally.fooled] == -1).all()
        assert (tally.queries[tally.attacked] > 0).all()
        assert (tally.queries[~tally.attacked] == 0).all()
    assert ledger.tallies[3].queries[ledger.tallies[3].standing].max() == 60


class Kill(Exception):  # noqa: N818 - not an error
    """As sudden as kill -9: nothing is saved after it."""


@pytest.mark.parametrize("every", [1, 3])
def test_a_killed_evaluation_goes_on_where_it_was_saved(every, network, bench, tmp_path):
    """Killed after each batch in turn, at whatever attack, target or stretch: the same outcome in the end."""
    whole, calls = Ledger(), []
    evaluate(network, bench, SHORT, ledger=whole, on_batch=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == 1
    path, work = tmp_path / "ledger.npz", 0
    for _ in range(len(calls) + 2):
        ledger, seen = Ledger.restore(path, "a"), 0

        def save_and_die(_, ledger=ledger):
            nonlocal seen
            seen += 1
            if seen == every:
                ledger.save(path, "a")
            if seen > every:
                raise Kill

        network.cost.forwards = 0
        try:
            evaluate(network, bench, SHORT, ledger=ledger, on_batch=save_and_die)
            break
        except Kill:
            work += network.cost.forwards
    else:
        pytest.fail("it never got further")
    for mine, theirs in zip(whole.tallies, ledger.tallies, strict=True):
        assert np.array_equal(mine.fooled, theirs.fooled)
        assert np.array_equal(mine.attacked, theirs.attacked)
        assert np.array_equal(mine.queries, theirs.queries), "nothing is counted twice"
    assert work > 0


def test_a_saved_evaluation_of_another_spec_is_refused(tmp_path):
    Ledger().save(tmp_path / "x.npz", "one")
    with pytest.raises(ValueError, match="another spec"):
        Ledger.restore(tmp_path / "x.npz", "two")


def test_the_outcome_depends_neither_on_batch_size_nor_on_order(network, bench, arrays):
    whole = evaluate(network, bench, SHORT)
    order = np.random.default_rng(0).permutation(60)
    shuffled = Bench(bench.images.choose(order), 10, 0, 7, CPU)
    other = evaluate(network, shuffled, SHORT)
    robust = robust_mask(whole, bench, SHORT.entries, LINF)
    again = robust_mask(other, shuffled, SHORT.entries, LINF)
    assert (robust[order] != again).sum() <= 1  # single precision rounds batches differently
    assert np.array_equal(whole.predictions[order], other.predictions)


def test_standard_is_autoattack_to_the_letter():
    suite = standard(LINF, ImageShape(1, 28, 28))
    names = [(e.attack.name, e.attack.model_dump(exclude={"name"})) for e in suite.entries]
    assert names == [
        ("apgd-ce", {"steps": 100, "restarts": 1, "eot": 1}),
        ("apgd-t", {"steps": 100, "targets": 9}),
        ("fab-t", {"steps": 100, "targets": 9}),
        ("square", {"queries": 5000, "p_init": 0.8, "rescale": False}),
    ]
    assert suite.cascade
    l1 = standard(ThreatModel(norm="l1", eps=12), ImageShape(1, 28, 28)).entries
    assert (l1[0].attack.restarts, l1[1].attack.targets, l1[2].attack.targets) == (5, 5, 9)
    rand = [(e.attack.name, e.attack.eot) for e in suite.if_randomised]
    assert rand == [("apgd-ce", 20), ("apgd-dlr", 20)]


def test_strict_adds_margin_pgd_with_restarts_and_more_queries():
    strict = SUITES["strict"](LINF, ImageShape(1, 28, 28)).entries
    assert strict[:4] == standard(LINF, ImageShape(1, 28, 28)).entries
    pgd, square = (entry.attack for entry in strict[4:])
    assert (pgd.name, pgd.loss, pgd.restarts) == ("pgd", "margin", 5)
    assert (square.name, square.queries) == ("square", 20_000)


class Noisy(nn.Module):
    def __init__(self, net, size):
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x):
        return self.net(x) + self.size * torch.randn(len(x), 10)


def test_a_randomised_model_gets_averaged_gradients(network, bench):
    assert not is_randomised(network, bench)
    noisy = Classifier(Noisy(network.net, 0.5)).eval()
    assert is_randomised(noisy, bench)
    rand = (Entry(APGD(name="apgd-ce", steps=5, eot=4), LINF),)
    suite = Suite(SHORT.entries, cascade=True, if_randomised=rand)
    noisy.cost.fb = 0
    ledger = evaluate(noisy, bench, suite)
    side = summarise(ledger, bench, suite, LINF)
    assert side.randomised
    assert [attack.name for attack in side.attacks] == ["apgd-ce"]
    assert 4 * 30 < noisy.cost.fb <= 6 * 4 * 60
    assert accuracy_curve(noisy, bench, ledger, rand, LINF) is None


def test_confusion_and_classes_count_every_image(network, bench):
    ledger = evaluate(network, bench, SHORT)
    side = summarise(ledger, bench, SHORT, LINF)
    assert sum(row.total for row in side.by_class) == 60
    assert sum(row.clean for row in side.by_class) == side.clean.correct
    assert sum(row.robust for row in side.by_class) == side.robust.correct
    assert sum(pair.count for pair in side.confusion) == 60 - side.robust.correct
    worst = worst_predictions(ledger, bench, SHORT.entries, LINF)
    assert ((worst == bench.labels) == robust_mask(ledger, bench, SHORT.entries, LINF)).all()
    counts = [pair.count for pair in side.confusion]
    assert counts == sorted(counts, reverse=True)


def test_the_curve_falls_from_clean_and_bounds_the_suite(network, bench):
    suite = Suite((Entry(FGSM(), LINF), Entry(PGD(steps=40, restarts=2), LINF)))
    ledger = evaluate(network, bench, suite)
    side = summarise(ledger, bench, suite, LINF)
    curve = accuracy_curve(network, bench, ledger, suite.entries, LINF)
    assert curve.images == 60
    assert curve.eps[0] == 0
    assert curve.eps[10] == pytest.approx(0.02)
    assert curve.accuracy[0] == pytest.approx(side.clean.accuracy)
    assert list(curve.accuracy) == sorted(curve.accuracy, reverse=True)
    assert curve.accuracy[10] <= side.robust.accuracy
    assert curve.accuracy[10] >= side.robust.accuracy - 0.1
    # a separate run at another eps agrees with the curve of one run
    half = ThreatModel(norm="linf", eps=curve.eps[5])
    there = Suite((Entry(PGD(steps=40, restarts=2), half),))
    separate = summarise(evaluate(network, bench, there), bench, there, half)
    assert abs(curve.accuracy[5] - separate.robust.accuracy) <= 0.07


def test_waves_keep_what_a_run_hands_on_small(network, bench, monkeypatch):
    monkeypatch.setattr("core.evaluate._WAVE_BYTES", 20 * 784 * 4)
    suite = Suite((Entry(Square(queries=60), LINF),))
    held = []
    ledger = Ledger()
    evaluate(network, bench, suite, ledger=ledger, on_batch=lambda _: held.append(len(ledger.place.last)))
    assert 0 < max(held) <= 20
    monkeypatch.setattr("core.evaluate._WAVE_BYTES", 1 << 30)
    whole = evaluate(network, bench, suite)
    assert np.array_equal(whole.tallies[0].fooled, ledger.tallies[0].fooled)


def test_waves_are_the_same_at_any_batch_size(network, bench, tmp_path, monkeypatch):
    """Saved at one batch size and resumed at another, as on another device: no image is left out."""
    monkeypatch.setattr("core.evaluate._WAVE_BYTES", 20 * 784 * 4)
    suite = Suite((Entry(Square(queries=60), LINF),))
    whole = evaluate(network, bench, suite)
    small = Bench(bench.images, 10, 0, 4, CPU)
    for stop in (2, 9, 17):
        ledger = Ledger()

        def save_and_die(_, ledger=ledger, stop=stop):
            if ledger.steps == stop:
                ledger.save(tmp_path / "ledger.npz", "a")
                raise Kill

        with pytest.raises(Kill):
            evaluate(network, small, suite, ledger=ledger, on_batch=save_and_die)
        again = evaluate(network, bench, suite, ledger=Ledger.restore(tmp_path / "ledger.npz", "a"))
        assert (again.tallies[0].queries[again.tallies[0].attacked] > 0).all()
        assert np.array_equal(whole.tallies[0].fooled, again.tallies[0].fooled)


def test_the_curve_counts_images_fooled_exactly_at_eps(network, bench, monkeypatch):
    """The suite's examples lie on the border of the ball, and 0.1 in single precision is more than 0.1."""
    monkeypatch.setattr("core.curve._smallest_norms", lambda m, b, correct, h: np.where(correct, np.inf, -1.0))
    for eps in (0.1, 8 / 255, 0.3):
        threat = ThreatModel(norm="linf", eps=eps)
        suite = Suite((Entry(PGD(steps=10), threat),))
        ledger = evaluate(network, bench, suite)
        curve = accuracy_curve(network, bench, ledger, suite.entries, threat)
        assert curve.accuracy[10] == pytest.approx(summarise(ledger, bench, suite, threat).robust.accuracy)
        assert curve.eps[10] == eps


class Creeps(Attack):
    """Goes one grey level further from where the last run left off; never fools anybody at this eps."""

    carries_on = True
    name: Literal["creeps"] = "creeps"

    def craft(self, model, x, y, threat, rng, run):
        return all_alike(torch.where(run.last < 0.5, run.last + 1 / 255, run.last - 1 / 255), 1)

    def work(self, num_classes):
        return [1, 1, 1]


def test_a_run_goes_on_from_where_the_last_one_left_off(network, bench):
    """In the evaluation's loop and in ``perturb`` alike."""
    ledger = Ledger()
    far = []

    def look(_):
        far.extend(np.abs(image - bench.images.pixels[row] / 255).max() for row, image in ledger.place.last.items())

    evaluate(network, bench, Suite((Entry(Creeps(), LINF),)), ledger=ledger, on_batch=look)
    assert max(far) == pytest.approx(3 / 255, abs=1e-5)
    x, y, ids = bench.images.batch(np.arange(8), CPU)
    whole = Creeps().perturb(network, x, y, LINF, Rng.for_images(0, ids))
    assert (whole - x).abs().max().item() == pytest.approx(3 / 255, abs=1e-5)
