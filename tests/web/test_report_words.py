"""What the report page says and puts in order, over reports that were changed in one thing."""

from __future__ import annotations

import copy

import pytest

from core.report import Report
from tests.web.pages import Page
from tests.web.test_report_page import content, shown
from web.report.tables import accuracies, epochs, raised
from web.report.verdict import reading
from web.report.words import attack_remarks, selection


def test_those_that_fell_were_classified_correctly_before():
    data = content("hardened")
    data["verdict"] = {"kind": "brittle", "reasons": []}
    clean, robust = data["after"]["clean"]["correct"], data["after"]["robust"]["correct"]
    said = f"Of {clean} images that it classifies correctly, {clean - robust} fell."
    assert said in reading(Report.model_validate(data)).means


@pytest.mark.parametrize(
    ("delta", "p_value", "said"),
    [
        (0.1, 0.01, "The model has little or no robustness."),
        (0.1, 0.06, "Hardening brought no real gain."),
        (0.0, 0.01, "Hardening brought no real gain."),
        (-0.1, 0.06, "Hardening brought no real gain."),
        (-0.1, 0.01, "Hardening made the model less robust."),
    ],
)
def test_a_gain_is_more_than_nothing_and_more_than_chance(delta, p_value, said):
    data = content("hardened")
    data["verdict"] = {"kind": "brittle", "reasons": []}
    data["change"]["robust"] |= {"delta": delta, "p_value": p_value}
    assert reading(Report.model_validate(data)).headline == said


def test_how_to_verify_what_is_unverified():
    data = content("hardened")
    data["verdict"]["remedies"] = ["do this", "do that"]
    assert "do this; do that." in reading(Report.model_validate(data)).advice
    del data["verdict"]["remedies"]
    assert "reasons above" in reading(Report.model_validate(data)).advice, "a report of an earlier version"


@pytest.mark.parametrize("code", ["other-weights", "training-mode", "randomised", "zero-gradients"])
def test_what_is_no_masking_is_not_called_so(code):
    data = content("hardened")
    data["verdict"] = {"kind": "suspect", "reasons": []}
    data["after"]["diagnosis"] = [{**sign, "raised": sign["code"] == code} for sign in data["after"]["diagnosis"]]
    headline = reading(Report.model_validate(data)).headline
    assert ("gradient masking" in headline) == (code == "zero-gradients")


def test_the_last_epoch_was_not_chosen():
    data = content("hardened")
    data["training"] |= {"selected_by": "last", "selected_epoch": 6}
    assert selection(Report.model_validate(data)) == "The last of 6 epochs ships; nothing was chosen."
    assert "selected by robust" in selection(Report.model_validate(content("hardened")))


def attack_of(**changes):
    data = content("hardened")
    data["before"]["attacks"][1] |= changes
    report = Report.model_validate(data)
    return attack_remarks(report.before.attacks[1], report)


def test_what_sets_an_attack_apart_is_said():
    assert attack_of() == []
    assert attack_of(threat={"norm": "linf", "eps": 0.05}) == ["linf, eps 0.05"]
    assert attack_of(threat={"norm": "l2", "eps": 0.1}) == ["l2, eps 0.1"]
    assert attack_of(counted=False) == ["not part of the worst case"]
    assert attack_of(adapted="more steps") == ["adapted: more steps"]


def test_the_same_attack_at_two_strengths_is_paired_with_itself():
    data = content("hardened")
    for side in ("before", "after"):
        weaker = copy.deepcopy(data[side]["attacks"][1])
        weaker |= {"threat": {"norm": "linf", "eps": 0.05}, "correct": 7, "accuracy": 7 / 300}
        data[side]["attacks"].insert(0 if side == "after" else 2, weaker)
    report = Report.model_validate(data)
    found = {(row.name, *row.remarks): (row.before, row.after) for row in accuracies(report)}
    assert [count.correct for count in found["Under pgd (20 steps)", "linf, eps 0.05"]] == [7, 7]
    pgd = [data[side]["attacks"] for side in ("before", "after")]
    stronger = [next(a for a in side if a["name"] == "pgd" and a["threat"]["eps"] == 0.1)["correct"] for side in pgd]
    assert [count.correct for count in found["Under pgd (20 steps)",]] == stronger


def test_an_attack_of_one_side_has_no_partner():
    data = content("hardened")
    data["after"]["attacks"][1]["params"]["steps"] = 50
    rows = accuracies(Report.model_validate(data))
    alone = {row.name: (row.before is None, row.after is None) for row in rows if row.delta is None}
    assert alone == {"Under pgd (20 steps)": (False, True), "Under pgd (50 steps)": (True, False)}
    assert "not run" in Page(shown(data)).text


def test_the_epoch_that_ships_is_always_among_those_shown():
    data = content("hardened")
    first = data["training"]["curves"][0]
    data["training"]["curves"] = [{**first, "epoch": epoch} for epoch in range(1, 1001)]
    curves = Report.model_validate(data).training.curves
    for selected in (1, 333, 778, 1000):
        kept = [curve.epoch for curve in epochs(curves, selected)]
        assert selected in kept
        assert {1, 1000} <= set(kept)
        assert len(kept) <= 43
        assert kept == sorted(kept)


def test_signs_of_the_model_that_ships_come_first_and_the_graver_ones_before_others():
    data = content("hardened")
    [sign] = data["diagnostics"]
    made = [("before", "masking"), ("after", "note"), ("before", "weak"), ("after", "masking"), ("after", "weak")]
    data["diagnostics"] = [{**sign, "side": side, "severity": severity} for side, severity in made]
    ordered = [(each.side, each.severity) for each in raised(Report.model_validate(data))]
    assert ordered == [("after", s) for s in ("masking", "weak", "note")] + [("before", s) for s in ("masking", "weak")]
