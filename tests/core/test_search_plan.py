"""The search on paper: rungs, the Pareto set, the goal, and what each candidate is trained with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.defenses import DEFENSES
from core.defenses.auto import Auto, Goal
from core.report import EpochCurve
from core.search.candidates import candidate, fb_of, with_epochs
from core.search.goal import GoalJudge, Target
from core.search.plan import Rung, cost, expected, pareto, plan
from core.spec import JobSpec


def spec(defense="auto", architecture="fmnist-cnn", **more):
    return JobSpec.model_validate({"model": {"architecture": architecture}, "defense": defense, **more})


def test_a_third_goes_on_at_three_times_the_passes():
    first, second = plan(6, eta=3, images=900, fb_per_image=60)
    assert first == Rung(6, pytest.approx(1 / 9), 300, pytest.approx(900 * 60 / 9))
    assert second == Rung(2, pytest.approx(1 / 3), 520, pytest.approx(900 * 60 / 3))  # 900 / sqrt(3) = 519.6


@pytest.mark.parametrize(
    ("candidates", "eta", "sizes"), [(8, 2, [8, 4, 2]), (9, 3, [9, 3]), (5, 2, [5, 2]), (1, 3, [])]
)
def test_rungs_end_before_the_winner_is_alone(candidates, eta, sizes):
    assert [rung.candidates for rung in plan(candidates, eta=eta, images=1000, fb_per_image=60)] == sizes


def test_all_rungs_cost_the_same_where_halving_comes_out_even():
    rungs = plan(8, eta=2, images=10_000, fb_per_image=60)
    assert [rung.candidates * rung.fb for rung in rungs] == pytest.approx([600_000] * 3)
    assert cost(rungs) == pytest.approx(3 * 600_000)
    assert expected(Auto(candidates=("aft", "mart"), eta=2), 100) == (pytest.approx(2 * 3000), 6000)


def test_a_scale_makes_rungs_smaller_but_never_less_than_a_batch():
    whole, half = (plan(4, eta=2, images=1000, fb_per_image=60, scale=scale) for scale in (1, 0.5))
    assert cost(half) == pytest.approx(cost(whole) / 2)
    assert [rung.images for rung in whole] == [500, 708]
    assert plan(4, eta=2, images=1000, fb_per_image=60, scale=1e-4)[0].images == 64
    assert plan(4, eta=2, images=10, fb_per_image=60)[0].images == 10


def test_the_pareto_set_holds_what_nothing_beats():
    points = {"a": (0.9, 0.1), "b": (0.8, 0.5), "c": (0.8, 0.4), "d": (0.7, 0.5), "e": (0.5, 0.6), "f": (0.4, 0.2)}
    assert pareto(points) == ["a", "b", "e"]
    assert pareto({"x": (0.5, 0.5), "y": (0.5, 0.5)}) == ["x", "y"], "equals do not beat each other"
    assert pareto({}) == []


def curve(epoch, clean, robust):
    rest = {
        "lr": 0,
        "train_loss": 0,
        "train_clean": 0,
        "train_robust": 0,
        "held_out_fgsm": 0,
        "strength": 1,
        "seconds": 0,
    }
    return EpochCurve(epoch=epoch, held_out_clean=clean, held_out_robust=robust, **rest)


def test_the_epoch_nearest_to_the_goal_ships():
    target = Target(robust=0.5, clean=0.8)
    assert target.violation(0.7, 0.3) == pytest.approx(0.3)
    assert target.violation(0.8, 0.5) == target.violation(1, 1) == 0
    judge = GoalJudge(target)
    assert judge.better(curve(2, 0.8, 0.5), curve(1, 0.5, 0.7)), "more robust, but too little is left clean"
    assert not judge.better(curve(2, 0.5, 0.7), curve(1, 0.8, 0.5))
    assert judge.better(curve(2, 0.8, 0.6), curve(1, 0.9, 0.5)), "both meet it"
    assert judge.better(curve(1, 0, 0), None)


def test_the_goal_is_met_under_the_stronger_attack_only():
    target, weak = Target(robust=0.5, clean=0.8), {"held_out_clean": 0.9, "held_out_robust": 0.6}
    asked = []

    def measure(model):
        asked.append(model)
        return (0.9, 0.4) if len(asked) == 1 else (0.9, 0.5)

    judge = GoalJudge(target, measure)
    assert not judge.enough("model", {**weak, "held_out_robust": 0.49})
    assert asked == [], "what fails under the weaker attack need not meet the stronger"
    assert not judge.enough("model", weak)
    assert judge.enough("model", weak)
    assert not GoalJudge(target).enough("model", weak)


@pytest.mark.parametrize("name", [name for name in DEFENSES.names() if DEFENSES[name].trains])
@pytest.mark.parametrize("architecture", ["fmnist-cnn", "resnet18-cifar"])
def test_every_defense_can_be_a_candidate_and_keeps_to_its_passes(name, architecture):
    job = spec(architecture=architecture)
    whole = candidate(job, name, fb=60 * 500, images=500)
    assert (whole.defense.name, whole.seed, whole.threat) == (name, job.seed, job.threat)
    assert fb_of(whole) <= 60 < fb_of(with_epochs(whole, whole.epochs + 1))
    assert candidate(job, name, fb=0, images=500).epochs == 1, "at least one"
    part = candidate(job, name, fb=60 * 500, images=500, samples=500)
    assert part.digest() != whole.digest(), "saved states of a rung are not the winner's"


def test_candidates_take_the_rates_that_were_measured_to_pay():
    assert candidate(spec(), "mart", fb=600, images=10).training.optimizer.name == "muon"
    assert candidate(spec(architecture="resnet18-cifar"), "mart", fb=600, images=10).training.optimizer.lr == 2e-3
    assert candidate(spec(), "fast-at", fb=600, images=10).training.optimizer.lr == 0.02
    assert candidate(spec(threat={"eps": 0.1}), "dra", fb=600, images=10).defense.attack.mean_change == pytest.approx(
        0.04
    )


@pytest.mark.parametrize(
    ("defense", "more", "sentence"),
    [
        ({"goal": {"robust": 1.5}}, {}, "less than or equal to 1"),
        ({"goal": {"robust": 0}}, {}, "greater than 0"),
        ({"goal": {"budget_minutes": 0}}, {}, "greater than 0"),
        ({"goal": {"max_clean_drop": -0.1}}, {}, "greater than or equal to 0"),
        ({"goal": {"accuracy": 0.5}}, {}, "Extra inputs"),
        ({"candidates": ["aft", "none"]}, {}, "'none' is no defense to try; choose from aft"),
        ({"candidates": ["auto"]}, {}, "'auto' is no defense to try"),
        ({"candidates": ["aft", "aft"]}, {}, "each candidate once"),
        ({"candidates": []}, {}, "at least 1 item"),
        ({"eta": 1}, {}, "greater than or equal to 2"),
        ({}, {"devices": 2}, "set devices to 1"),
        ({}, {"training": {"epochs": 2}}, "leave out training"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(defense, more, sentence):
    with pytest.raises(ValidationError, match=sentence):
        spec({"name": "auto", **defense}, **more)


def test_the_job_shows_its_goal_and_no_training_of_its_own():
    resolved = spec({"name": "auto", "goal": {"robust": 0.45, "max_clean_drop": 0.03, "budget_minutes": 60}})
    assert resolved.defense.goal == Goal(robust=0.45, max_clean_drop=0.03, budget_minutes=60)
    assert resolved.training is None
    assert resolved.held_out == 1000
    assert spec("aft").held_out == 500
    assert spec("none").held_out is None
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved
