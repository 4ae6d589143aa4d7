"""Intervals and the paired test against published and hand-worked values."""

from __future__ import annotations

import pytest

from core.stats import mcnemar, wilson


@pytest.mark.parametrize(
    ("correct", "total", "interval"),
    [
        (0, 10, (0.0, 0.2775)),  # Wilson's own textbook rows
        (10, 10, (0.7225, 1.0)),
        (5, 10, (0.2366, 0.7634)),
        (899, 1000, (0.8788, 0.9162)),
        (9, 1000, (0.0047, 0.0170)),
    ],
)
def test_wilson(correct, total, interval):
    assert wilson(correct, total) == pytest.approx(interval, abs=1e-4)


def test_wilson_of_nothing():
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1), (5, 5, 1), (10, 0, 2 / 1024), (1, 6, 2 * (1 + 7) / 128), (3, 3, 1), (0, 1, 1)],
)
def test_mcnemar(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_mcnemar_with_many_images():
    assert 0 < mcnemar(6000, 5500) < 1e-5
    assert mcnemar(4000, 0) < 1e-300 or mcnemar(4000, 0) == 0
