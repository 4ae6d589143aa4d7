"""Suite standard against the official AutoAttack: seconds and robust accuracy, attack by attack, in one run.

TEMPER_AUTOATTACK names a checkout of the official code (github.com/fra31/auto-attack); without it only ours is timed.
Both get the same weights and images; ours also verifies every adversarial example, and that time counts.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.models import Subject, cifar10, fashion_mnist, pixels
from core.data import ImageSet
from core.evaluate import Bench, evaluate
from core.models.base import ImageShape
from core.models.classifier import Classifier
from core.suites import standard
from core.summary import summarise
from core.tally import Ledger
from core.threat import ThreatModel

COUNT = int(os.environ.get("TEMPER_BENCH_IMAGES", "400"))
BATCH = 250  # the official default
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ours(subject: Subject) -> dict[str, tuple[float, float]]:
    """Seconds and accuracy after each attack."""
    model = Classifier(subject.network()).eval().to(DEVICE)
    labels = subject.y[:COUNT].numpy()
    images = ImageSet(pixels(subject.x[:COUNT]), labels, np.arange(len(labels)))
    bench = Bench(images, 10, 0, 1000 if DEVICE.type == "cuda" else 128, DEVICE)
    threat = ThreatModel(norm="linf", eps=subject.eps)
    suite = standard(threat, ImageShape(*subject.x.shape[1:]))
    ledger, ends, started = Ledger(), {}, time.perf_counter()

    def on_batch(_: float) -> None:
        ends[len(ledger.tallies)] = time.perf_counter() - started

    evaluate(model, bench, suite, ledger=ledger, on_batch=on_batch)
    side = summarise(ledger, bench, suite, threat)
    result, before = {}, 0.0
    for number, attack in enumerate(side.attacks, 1):
        end = ends.get(number, before)
        result[attack.name] = (end - before, attack.accuracy)
        before = end
    return result


def official(subject: Subject) -> dict[str, tuple[float, float]]:
    """The same from the official code."""
    sys.path.insert(0, os.environ["TEMPER_AUTOATTACK"])
    from autoattack import AutoAttack  # type: ignore[import-not-found]

    net = subject.network().to(DEVICE)
    x, y = subject.x[:COUNT], subject.y[:COUNT]
    attack = AutoAttack(net, norm="Linf", eps=subject.eps, version="standard", device=DEVICE, verbose=False, seed=0)
    result = {}
    for name in tuple(attack.attacks_to_run):
        attack.attacks_to_run = [name]
        started = time.perf_counter()
        adversarial = attack.run_standard_evaluation(x, y, bs=BATCH)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            standing = net(adversarial.to(DEVICE)).argmax(1).cpu() == y
        x, y = x[standing], y[standing]  # as its own cascade does
        result[name] = (seconds, len(y) / COUNT)
        if len(y) == 0:
            break
    return result


def lines(subject: Subject) -> Iterator[str]:
    """One table."""
    mine = ours(subject)
    where = f"{DEVICE}, {torch.get_num_threads()} threads"
    yield f"\nstandard on {subject.name}, {COUNT} images, linf {subject.eps:.4g}, {where}"
    if "TEMPER_AUTOATTACK" not in os.environ:
        yield from (f"  {name:8} {s:8.1f} s  accuracy {a:.2%}" for name, (s, a) in mine.items())
        yield "  TEMPER_AUTOATTACK is not set: no comparison"
        return
    theirs = official(subject)
    for name, (seconds, accuracy) in mine.items():
        other = theirs.get(name, (0.0, 0.0))
        yield f"  {name:8} {seconds:8.1f} s  {accuracy:7.2%}   official {other[0]:8.1f} s  {other[1]:7.2%}"
    total, other_total = (sum(seconds for seconds, _ in side.values()) for side in (mine, theirs))
    yield f"  {'all':8} {total:8.1f} s            official {other_total:8.1f} s: {other_total / total:.1f}x"


def main() -> None:
    """All networks."""
    warnings.simplefilter("ignore")
    for subject in [*fashion_mnist(), *cifar10()]:
        for line in lines(subject):
            print(line, flush=True)
