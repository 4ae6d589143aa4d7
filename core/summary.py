"""Turns what an evaluation found, image by image, into one side of the report."""

from __future__ import annotations

from collections import Counter

import numpy as np

from core.evaluate import Bench, entries_for
from core.report import AttackResult, ClassCount, Confusion, Count, Side
from core.suites import Entry, Suite
from core.tally import Integers, Ledger, Mask
from core.threat import ThreatModel

_MOST_CONFUSIONS = 100  # of up to classes^2


def robust_mask(ledger: Ledger, bench: Bench, entries: tuple[Entry, ...], headline: ThreatModel) -> Mask:
    """Images that are correct and that no counted attack fooled."""
    robust = clean_mask(ledger, bench)
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if counts(entry, headline):
            robust &= ~tally.fooled
    return robust


def clean_mask(ledger: Ledger, bench: Bench) -> Mask:
    """Images that are classified correctly."""
    if ledger.predictions is None:
        raise ValueError("nothing has been evaluated")
    correct: Mask = ledger.predictions == bench.labels
    return correct


def counts(entry: Entry, headline: ThreatModel) -> bool:
    """Whether an attack is part of the worst case: bounded, and a success in its ball is one in the headline's."""
    return entry.attack.bounded and entry.threat.norm == headline.norm and entry.threat.eps <= headline.eps


def summarise(ledger: Ledger, bench: Bench, suite: Suite, headline: ThreatModel) -> Side:
    """Counts of all images, attack by attack and in the worst case."""
    entries = entries_for(suite, randomised=ledger.randomised)
    clean = clean_mask(ledger, bench)
    results, so_far = [], clean.copy()
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if entry.attack.bounded:
            so_far &= ~tally.fooled
        correct = so_far if suite.cascade else clean & ~tally.fooled
        count = Count.of(int(correct.sum()), len(clean))
        results.append(
            AttackResult(
                **count.model_dump(),
                name=entry.attack.name,
                params=entry.attack.model_dump(mode="json", exclude={"name"}),
                threat=entry.threat,
                counted=counts(entry, headline),
                cumulative=suite.cascade,
                attacked=int(tally.attacked.sum()),
                fooled=int(tally.fooled.sum()),
                adapted=entry.attack.adapted(bench.num_classes),
            )
        )
    robust = robust_mask(ledger, bench, entries, headline)
    return Side(
        clean=Count.of(int(clean.sum()), len(clean)),
        attacks=tuple(results),
        robust=Count.of(int(robust.sum()), len(clean)),
        randomised=ledger.randomised,
        by_class=_by_class(bench, clean, robust),
        confusion=_confusion(bench.labels, worst_predictions(ledger, bench, entries, headline)),
    )


def worst_predictions(ledger: Ledger, bench: Bench, entries: tuple[Entry, ...], headline: ThreatModel) -> Integers:
    """The label under the first counted attack that succeeded; the clean prediction where none did."""
    if ledger.predictions is None:
        raise ValueError("nothing has been evaluated")
    worst = ledger.predictions.copy()
    unclaimed = clean_mask(ledger, bench)
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        if counts(entry, headline):
            first = tally.fooled & unclaimed
            worst[first] = tally.prediction[first]
            unclaimed &= ~first
    return worst


def _by_class(bench: Bench, clean: Mask, robust: Mask) -> tuple[ClassCount, ...]:
    labels = bench.labels
    totals, cleans, robusts = (
        np.bincount(labels[mask], minlength=bench.num_classes) for mask in (np.ones_like(clean), clean, robust)
    )
    return tuple(
        ClassCount(label=label, total=int(total), clean=int(cleans[label]), robust=int(robusts[label]))
        for label, total in enumerate(totals)
        if total
    )


def _confusion(labels: Integers, predictions: Integers) -> tuple[Confusion, ...]:
    wrong = labels != predictions
    pairs = Counter(zip(labels[wrong].tolist(), predictions[wrong].tolist(), strict=True))
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CONFUSIONS]
    return tuple(Confusion(true=true, predicted=predicted, count=count) for (true, predicted), count in ranked)
