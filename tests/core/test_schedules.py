"""Schedules against their formulas, worked by hand."""

from __future__ import annotations

import math

import pytest
from pydantic import TypeAdapter

from core.schedules import SCHEDULES, AnySchedule
from core.schedules.cosine import Cosine
from core.schedules.cyclic import Cyclic
from core.schedules.multi_step import MultiStep
from core.schedules.slow_start_fast_decay import SlowStartFastDecay
from core.schedules.step import Step


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_is_a_share_of_the_peak_and_survives_json(name):
    schedule = SCHEDULES[name].model_validate({"name": name})
    factors = [schedule.factor(t / 7, 12) for t in range(12 * 7)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0.97
    assert TypeAdapter(AnySchedule).validate_json(schedule.model_dump_json()) == schedule


def test_slow_start_fast_decay():
    schedule = SlowStartFastDecay()
    multipliers = [5 * schedule.factor(t, 10) for t in range(1, 11)]
    assert multipliers == pytest.approx([1, 2, 3, 4, 5, 2.5, 1.25, 0.625, 0.3125, 0.15625])
    assert schedule.factor(0, 10) == 0
    assert schedule.factor(2.5, 10) == pytest.approx(0.5)
    assert schedule.factor(5.5, 10) == pytest.approx(2**-0.5)
    for t in (0.3, 4, 7.7):  # another length scales it
        assert schedule.factor(3 * t, 30) == pytest.approx(schedule.factor(t, 10))


def test_step():
    schedule = Step(every=2, gamma=0.5)
    assert [schedule.factor(t, 100) for t in (0, 1.99, 2, 3.5, 4, 9)] == [1, 1, 0.5, 0.5, 0.25, 1 / 16]


def test_multi_step_at_the_papers_epochs():
    """DRA: lr x 0.1 at epochs 30 and 50 of 60; 5/6 of 60 is 50 for floats too."""
    schedule = MultiStep(milestones=(0.5, 5 / 6), gamma=0.1)
    assert [schedule.factor(t, 60) for t in (0, 29.99, 30, 49.99, 50, 59)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cyclic():
    schedule = Cyclic()
    assert [schedule.factor(t, 15) for t in (0, 3, 6, 10.5, 15)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_cosine():
    schedule = Cosine()
    assert [schedule.factor(t, 8) for t in (0, 2, 4, 8)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0], abs=1e-12
    )
