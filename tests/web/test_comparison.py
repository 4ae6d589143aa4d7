"""Jobs side by side: the front by its definition, and warnings where numbers cannot be compared."""

from __future__ import annotations

from functools import reduce
from operator import getitem

import pytest

from core.report import Count, Report
from tests.web.test_report_page import content
from web.dashboard.comparison import Compared, differences, front, picture
from web.dashboard.curves import curves


def job(name, clean, robust, *, after=True, **changes):
    """A whole report; ``changes``: other values by their places in it, with __ for dots."""
    data = content("hardened")
    for side in ("before", "after"):
        data[side]["clean"], data[side]["robust"] = count(clean), count(robust)
    data["after"] = data["after"] if after else None
    for place, value in changes.items():
        *way, last = place.split("__")
        reduce(getitem, way, data)[last] = value
    return Compared(name, name, Report.model_validate(data))


def count(correct):
    return Count.of(correct, 100).model_dump()


def test_no_other_beats_a_job_on_the_front():
    jobs = [job("best clean", 90, 10), job("best robust", 60, 50), job("between", 70, 30), job("beaten", 70, 20)]
    assert front(jobs) == {"best clean", "best robust", "between"}
    assert front([job("a", 50, 50), job("b", 50, 50)]) == {"a", "b"}, "equals do not beat each other"
    assert front([]) == set()


def test_what_keeps_numbers_apart_is_named():
    assert differences([job("a", 1, 1), job("b", 2, 2)]) == []
    assert differences([job("a", 1, 1), job("b", 2, 2, threat__eps=0.2)]) == ["threat models"]
    apart = differences([job("a", 1, 1), job("b", 2, 2, suite="strict", images__ids_sha256="b" * 64)])
    assert apart == ["suites of attacks", "test images"]


@pytest.mark.parametrize("place", ["inputs__data__source__sha256", "spec__data__resize", "spec__data__crop"])
def test_ids_are_rows_of_one_source_read_in_one_way(place):
    """Other data with as many images has the same ids."""
    value = "b" * 64 if "sha256" in place else 32
    assert differences([job("a", 1, 1), job("b", 2, 2, **{place: value})]) == ["test images"]


def test_the_picture_has_a_marker_and_both_intervals_of_each_job_and_says_so():
    drawn = picture([job("<b>a</b>", 90, 10), job("evaluated", 60, 50, after=False)])
    assert drawn.count('class="interval"') == 4
    assert "<b>" not in drawn
    assert "&lt;b&gt;a&lt;/b&gt;: clean 90.0%, robust 10.0%; evaluated: clean 60.0%, robust 50.0%" in drawn


def epoch(number, **changes):
    usual = {"epoch": number, "held_out_clean": 0.9, "held_out_robust": 0.25, "train_loss": 1.5, "lr": 2.5e-4}
    return usual | changes


def test_curves_say_the_last_epoch_and_are_as_long_as_the_training():
    drawn = curves([epoch(1), epoch(2, held_out_robust=0.3)], 10)
    assert "After epoch 2 of 10: 90.0% of the held-out images correct clean, 30.0% under PGD-10" in drawn
    assert ">10</text>" in drawn
    assert drawn.count("<path") > 10


def test_curves_of_a_single_epoch_and_of_nothing_learned():
    assert "After epoch 1 of 1" in curves([epoch(1, train_loss=0.0, lr=0.0)], 1)
