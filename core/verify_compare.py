"""Compares attacks that were run again with what was certified: image by image, or by counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyarrow import parquet

from core.certificate import CertificateError, CertifiedCount, CertifiedSide, SideName
from core.data import Ids
from core.evaluate import Bench
from core.suites import Entry
from core.summary import counts
from core.tally import Ledger, Mask
from core.threat import ThreatModel

_CHANCE = 1e-3  # a sample this unlikely, were the certified count true, is not put down to chance


@dataclass(frozen=True)
class Outcomes:
    """Which images are correct: clean, under each attack in order, and under every counted one; (n,) each."""

    clean: Mask
    attacks: tuple[Mask, ...]
    robust: Mask

    @classmethod
    def of(
        cls, clean: Mask, fooled: list[Mask], entries: tuple[Entry, ...], headline: ThreatModel, *, cascade: bool
    ) -> Outcomes:
        """``fooled``: by each attack, in the order of ``entries``."""
        left, robust, attacks = clean.copy(), clean.copy(), []
        for mask, entry in zip(fooled, entries, strict=True):
            if entry.attack.bounded:
                left &= ~mask
            attacks.append(left.copy() if cascade else clean & ~mask)
            if counts(entry, headline):
                robust &= ~mask
        return cls(clean, tuple(attacks), robust)

    def choose(self, rows: Ids) -> Outcomes:
        """Of the images at these positions."""
        return Outcomes(self.clean[rows], tuple(mask[rows] for mask in self.attacks), self.robust[rows])

    def rows(self, entries: tuple[Entry, ...]) -> Iterator[tuple[str, Mask]]:
        """All of them by the names that they are shown with."""
        yield "clean", self.clean
        for entry, mask in zip(entries, self.attacks, strict=True):
            yield f"{entry.attack.name} ({entry.threat.norm} eps {entry.threat.eps:.4g})", mask
        yield "robust (worst case)", self.robust


@dataclass(frozen=True)
class Comparison:
    """One line: whether the certificate and this machine agree, and how far they are apart."""

    name: str
    agrees: bool
    sentence: str


def outcomes_here(
    ledger: Ledger, bench: Bench, entries: tuple[Entry, ...], headline: ThreatModel, *, cascade: bool
) -> Outcomes:
    """Of attacks that were run on this machine."""
    if ledger.predictions is None:
        raise ValueError("nothing has been evaluated")
    clean = np.asarray(ledger.predictions == bench.labels)
    return Outcomes.of(clean, [tally.fooled for tally in ledger.tallies], entries, headline, cascade=cascade)


def outcomes_there(
    path: Path, name: SideName, ids: Ids, entries: tuple[Entry, ...], headline: ThreatModel, *, cascade: bool
) -> Outcomes:
    """Of the job, for these images, from its per-image results. Raises: CertificateError if they lack one."""
    prefixes = [f"{name}_{i}_{entry.attack.name.replace('-', '_')}" for i, entry in enumerate(entries, 1)]
    columns = ["id", "label", f"{name}_clean_prediction", *(f"{prefix}_fooled" for prefix in prefixes)]
    try:
        table = {
            key: np.asarray(values) for key, values in parquet.read_table(path, columns=columns).to_pydict().items()
        }
        rows = np.searchsorted(table["id"], ids)
        if not np.array_equal(table["id"][rows], ids):
            raise IndexError
        found = {key: values[rows] for key, values in table.items()}
    except (KeyError, IndexError) as error:
        raise CertificateError(f"{path.name} has not the images and attacks that the certificate names") from error
    clean = found[f"{name}_clean_prediction"] == found["label"]
    fooled = [found[f"{prefix}_fooled"].astype(bool) for prefix in prefixes]
    return Outcomes.of(clean, fooled, entries, headline, cascade=cascade)


def compare_images(here: Outcomes, there: Outcomes, entries: tuple[Entry, ...], allowed: int) -> list[Comparison]:
    """Image by image; at most ``allowed`` of them may differ."""
    lines = []
    for (name, ours), (_, theirs) in zip(here.rows(entries), there.rows(entries), strict=True):
        differ, total = int((ours != theirs).sum()), len(ours)
        sentence = f"{differ} of {total} images differ; correct here {int(ours.sum())}, certified {int(theirs.sum())}"
        lines.append(Comparison(name, differ <= allowed, sentence))
    return lines


def compare_totals(there: Outcomes, side: CertifiedSide, entries: tuple[Entry, ...], file: str) -> Comparison:
    """Whether the per-image results of all images add up to the certified counts, exactly."""
    certified = [side.clean, *side.attacks, side.robust]
    rows = [
        (name, int(mask.sum()), count.correct)
        for (name, mask), count in zip(there.rows(entries), certified, strict=True)
    ]
    wrong = [f"{name} has {found}, certified {correct}" for name, found, correct in rows if found != correct]
    return Comparison(file, not wrong, "; ".join(wrong) or "its counts are those that are certified")


def compare_counts(
    here: Outcomes, side: CertifiedSide, entries: tuple[Entry, ...], tolerance: float
) -> list[Comparison]:
    """By what a sample of that size can show: could it come of the certified count, give or take ``tolerance``?"""
    certified = [side.clean, *side.attacks, side.robust]
    lines = []
    for (name, ours), count in zip(here.rows(entries), certified, strict=True):
        correct, images = int(ours.sum()), len(ours)
        chance = likelihood(correct, images, count, tolerance)
        sentence = f"correct here {correct} of {images}, certified {count.correct} of {count.total} (p = {chance:.2g})"
        lines.append(Comparison(name, chance >= _CHANCE, sentence))
    return lines


def likelihood(correct: int, images: int, certified: CertifiedCount, tolerance: float) -> float:
    """Chance that a sample lies as far off as this one, or farther, to its side; hypergeometric, exact.

    The certified count is first moved towards the sample by ``tolerance`` of all images: that much is for numerics.
    """
    slack, total = int(tolerance * certified.total), certified.total
    if correct * total >= certified.correct * images:
        right = min(total, certified.correct + slack)
        tail = range(correct, images + 1)
    else:
        right = max(0, certified.correct - slack)
        tail = range(correct + 1)
    ways = sum(math.comb(right, k) * math.comb(total - right, images - k) for k in tail)
    return float(ways / math.comb(total, images))
