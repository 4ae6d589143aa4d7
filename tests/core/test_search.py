"""The search itself: the same after every kill, within its budget, and blind to the images of the report."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.data import ImageSet
from core.defenses.aft import AFT
from core.defenses.natural import Natural
from core.errors import DivergedError, Stopped, UnsupportedError
from core.inputs import load_inputs
from core.models import ImageShape
from core.prepared import Workdir
from core.progress import Progress
from core.report import Report
from core.run import run
from core.search.account import found, remarks
from core.search.search import Search
from core.search.trials import Trials
from core.spec import JobSpec
from tests.core.workdirs import make_workdir, save, small_data

NETWORK = {
    "sequential": [
        {"conv2d": {"out_channels": 4, "kernel_size": 5, "stride": 4}},
        "batch_norm2d",
        "relu",
        "flatten",
        {"dropout": {"p": 0.1}},
        {"linear": {"out_features": 10}},
    ]
}
AUTO = {
    "name": "auto",
    "goal": {"robust": 0.9, "max_clean_drop": 0.1},
    "candidates": ["natural", "fast-at", "aft", "trades"],
    "eta": 2,
    "fb_per_image": 18,
    "held_out": 30,
}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, arrays):
    """A work folder with prepared inputs, which each test copies."""
    folder = tmp_path_factory.mktemp("search")
    torch.manual_seed(3)
    spec = job()
    checkpoint = save(folder / "model.pt", spec.model.architecture.build(10, ImageShape(1, 28, 28)).state_dict())
    make_workdir(
        folder / "run", spec.model_dump(mode="json"), checkpoint, small_data(folder / "d.npz", arrays, 330, 40)
    )
    return folder / "run"


def job(**auto):
    content = {**AUTO, **auto}
    content["goal"] = {**AUTO["goal"], **auto.get("goal", {})}
    return JobSpec.model_validate(
        {
            "model": {"architecture": NETWORK},
            "defense": content,
            "threat": {"eps": 0.05},
            "evaluation": {"samples": 40, "allow_low_baseline": True, "diagnose": False},
        }
    )


class Process:
    """An attempt at a job in a folder of its own; what it tells to store is stored under its slot, as workers do."""

    def __init__(self, ingested, folder, spec, stored=None, should_stop=lambda _: False, **changes) -> None:
        self.workdir, self.stored, self.events = Workdir(folder), dict(stored or {}), []
        shutil.copytree(ingested / "input", folder / "input")
        (folder / "state").mkdir()
        for slot, content in self.stored.items():
            (folder / "state" / slot).write_bytes(content)
        inputs = load_inputs(spec, self.workdir, torch.device("cpu"))
        self.inputs = replace(inputs, **changes.pop("inputs", {}))
        counts = {"images": 40, "train_images": len(inputs.train), "held_out": len(inputs.held_out)}
        self.search = Search(
            inputs=self.inputs,
            workdir=self.workdir,
            on_event=self.tell,
            progress=Progress(spec, num_classes=10, suite=inputs.suite, **counts),
            should_stop=lambda: should_stop(self),
            **{"clean_before": 0.5, "fb_per_second": None, "clock": lambda: 0.0, **changes},
        )

    def tell(self, event):
        self.events.append(event)
        if event["type"] == "state":
            # a slot that comes again is the newest: a dict keeps the order in which keys came first
            self.stored.pop(event["slot"], None)
            self.stored[event["slot"]] = (self.workdir.root / "state" / event["file"]).read_bytes()

    def run(self):
        self.trained = self.search.run()
        return self

    @property
    def report(self):
        return found(self.search, self.trained)

    @property
    def outcome(self):
        """All that must not depend on kills: what was measured, and the weights."""
        weights = {key: value.numpy().tobytes() for key, value in self.trained.weights.items()}
        return [replace(tried) for tried in self.search.state.tried], self.search.state.final, weights

    def kinds(self, kind):
        return [event for event in self.events if event["type"] == kind]


@pytest.fixture(scope="module")
def whole(ingested, tmp_path_factory):
    """A search that nothing disturbs."""
    return Process(ingested, tmp_path_factory.mktemp("whole") / "run", job()).run()


def test_rungs_shrink_and_the_best_go_on(whole):
    report = whole.report
    assert [len(rung.trials) for rung in report.rungs] == [4, 2]
    assert [rung.images for rung in report.rungs] == [150, 213]  # 300 / 2, 300 / sqrt(2)
    assert [trial.candidate for trial in report.rungs[0].trials] == AUTO["candidates"], "as they were tried"
    for rung, after in itertools.pairwise([*[rung.trials for rung in report.rungs], (report.final,)]):
        kept = [trial for trial in rung if trial.kept]
        assert {trial.candidate for trial in kept} == {trial.candidate for trial in after}
        dropped = [trial for trial in rung if not trial.kept]
        assert max(trial.violation for trial in kept) <= min(trial.violation for trial in dropped)
        assert all("rank" in trial.reason for trial in rung)
    assert report.final.images == 300
    assert report.held_out_images == report.final.clean.total == 30
    assert report.final.epochs == len(whole.trained.state.curves)
    assert report.least_clean == pytest.approx(0.4)
    assert report.attack["steps"] == 20
    assert (report.stopped, report.met, report.scale) == ("complete", False, 1.0)
    assert "The goal was not met" in remarks(report)[1]


def test_the_pareto_set_is_of_all_trained_models(whole):
    report = whole.report
    trials = [trial for rung in report.rungs for trial in rung.trials] + [report.final]
    points = {(trial.clean.accuracy, trial.robust.accuracy) for trial in trials}
    front = [(point.clean, point.robust) for point in report.pareto]
    assert front == sorted(front, reverse=True)
    assert set(front) <= points
    assert not [p for p in points if any(p[0] >= f[0] and p[1] >= f[1] and p != f for f in front)]


def test_events_tell_every_candidate_and_every_rung(whole):
    assert [(event["rung"], event["name"]) for event in whole.kinds("candidate")][:4] == [
        (1, name) for name in AUTO["candidates"]
    ]
    rungs = whole.kinds("rung")
    assert [(event["rung"], len(event["kept"]), len(event["dropped"])) for event in rungs] == [(1, 2, 2), (2, 1, 1)]
    assert len(whole.kinds("epoch")) == whole.report.final.epochs, "of the winner's training alone"
    fractions = [event["fraction"] for event in whole.kinds("progress")]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def test_the_place_grows_with_each_state(whole):
    """Else a worker would take a job that is killed now and then for one that gets nowhere."""
    places = [(event["epoch"], event["step"]) for event in whole.kinds("state")]
    assert places == sorted(places)
    assert places[-1] == (whole.search.winner.epochs, 0)


@pytest.mark.parametrize("trial", range(7))
def test_killed_in_any_training_it_comes_to_the_same(trial, whole, ingested, tmp_path):
    """Stopped in the middle of one, and again as soon as it went on; each attempt has only what was stored."""
    polls = itertools.count(1)

    def in_that_training(process):
        return len(process.search.state.tried) == trial and next(polls) > 3

    stored = {}
    for attempt, should_stop in enumerate([in_that_training, lambda _: True]):
        process = Process(ingested, tmp_path / str(attempt), job(), stored, should_stop)
        with pytest.raises(Stopped):
            process.run()
        stored = process.stored
    process = Process(ingested, tmp_path / "last", job(), stored).run()
    assert process.outcome == whole.outcome
    assert len(process.kinds("candidate")) == 6 - trial, "what was tried is not tried again"
    assert process.report.pareto == whole.report.pareto


def test_a_finished_search_is_not_repeated(whole, ingested, tmp_path):
    """The job was killed in its last evaluation."""
    process = Process(ingested, tmp_path / "run", job(), whole.stored).run()
    assert process.outcome == whole.outcome
    assert not process.kinds("candidate") + process.kinds("epoch") + process.kinds("rung")


def test_the_images_of_the_report_have_no_say(whole, ingested, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), np.uint8)
    images = ImageSet(noise, np.zeros(40, np.int64), np.arange(40))
    assert Process(ingested, tmp_path / "run", job(), inputs={"images": images}).run().outcome == whole.outcome


def spoiled(judge, weights, search):
    """Of the winner, other weights are judged."""

    def judged(self, number, name, images, trained, failed):
        trained = replace(trained, weights=weights) if number == len(search.rungs) else trained
        return judge(self, number, name, images, trained, failed)

    return judged


class Clock:
    """Time passes by a second with each look at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_the_budget_ends_the_search_and_leaves_the_winner_its_share(ingested, tmp_path):
    process = Process(ingested, tmp_path / "run", job(goal={"budget_minutes": 6}), clock=Clock()).run()
    report = process.report
    assert report.stopped == "budget"
    assert "the search's share of the budget ended in rung 1 of 2, while" in report.where
    tried = report.rungs[0].trials
    assert 0 < len(tried) < 4
    assert report.winner == min(tried, key=lambda trial: (trial.violation, trial.fb)).candidate
    assert report.final.epochs >= 1
    assert process.trained.weights


def test_a_budget_for_nothing_still_gives_the_first_candidate_an_epoch(ingested, tmp_path):
    process = Process(ingested, tmp_path / "run", job(goal={"budget_minutes": 0.01}), clock=Clock()).run()
    assert process.report.rungs == ()
    assert (process.report.winner, process.report.final.epochs) == ("natural", 1)
    assert process.report.stopped == "budget"
    assert process.trained.state.stopped == "budget"


def test_what_was_spent_before_a_kill_is_spent(ingested, tmp_path):
    spec = job(goal={"budget_minutes": 0.5})
    process = Process(ingested, tmp_path / "a", spec, should_stop=lambda p: p.search.trials.elapsed > 10, clock=Clock())
    with pytest.raises(Stopped):
        process.run()
    again = Process(ingested, tmp_path / "b", spec, process.stored, clock=lambda: 0.0)
    assert 10 < again.search.trials.elapsed < 20


def test_the_winner_gets_the_epochs_that_are_left(ingested, tmp_path):
    """By the seconds that its last rung took; nothing else than the clock is changed."""
    spec = job(goal={"budget_minutes": 13.5}, candidates=["natural", "fast-at"])
    process = Process(ingested, tmp_path / "run", spec, clock=Clock()).run()
    report = process.report
    latest = next(trial for trial in report.rungs[-1].trials if trial.kept)
    per_epoch = latest.seconds * 300 / (latest.images * latest.epochs)
    assert 1 < report.final.epochs < process.search.planned
    assert sum(trial.seconds for trial in report.rungs[0].trials) + report.final.epochs * per_epoch < 13.5 * 60
    assert report.stopped == "budget"


def test_a_slow_machine_gets_smaller_rungs(ingested, tmp_path):
    spec = job(goal={"budget_minutes": 1})
    planned = 2 * 300 * 18  # each of two rungs costs as much as the winner
    process = Process(ingested, tmp_path / "run", spec, fb_per_second=planned / 36 / 2).run()
    assert process.report.scale == 0.5, "36 seconds are the search's share of a minute"


def test_what_a_rung_left_ships_if_the_winner_comes_to_less(whole, ingested, tmp_path, monkeypatch):
    """Else a training that the budget cut short would ship in place of a better model that was there."""
    first = Process(ingested, tmp_path / "a", job())
    nothing = {key: torch.zeros_like(value) for key, value in whole.trained.weights.items()}
    monkeypatch.setattr(Trials, "measure", spoiled(Trials.measure, nothing, first.search))
    first.run()
    report = first.report
    best = min((trial for rung in report.rungs for trial in rung.trials), key=lambda trial: trial.violation)
    assert report.final.violation > best.violation
    assert (report.shipped.candidate, report.shipped.rung) == (best.candidate, best.rung)
    model = first.inputs.build()
    model.net.load_state_dict(first.trained.weights)
    assert first.search.trials.count(model) == (best.clean.correct, best.robust.correct)
    assert "as rung" in remarks(report)[1]
    again = Process(ingested, tmp_path / "b", job(), first.stored).run()
    assert all(torch.equal(value, again.trained.weights[key]) for key, value in first.trained.weights.items())


def test_it_ends_when_the_goal_is_met(ingested, tmp_path):
    process = Process(ingested, tmp_path / "run", job(goal={"robust": 0.01, "max_clean_drop": 1})).run()
    report = process.report
    assert (report.stopped, report.met) == ("goal", True)
    assert len(report.rungs) == 1, "further rungs would only cost"
    assert [trial.candidate for trial in report.rungs[0].trials if trial.kept] == [report.winner]
    (told,) = [event for event in process.events if event["type"] == "rung"]
    assert told["kept"] == [report.winner]
    assert len(told["dropped"]) == len(report.rungs[0].trials) - 1
    assert process.trained.state.stopped == "goal"
    assert report.final.epochs < process.search.planned
    assert len(remarks(report)) == 1


def test_who_cannot_do_the_job_is_left_out_and_named(ingested, tmp_path):
    refusing = {"candidates": ["free-at", "aft"]}
    spec = job(**refusing).model_copy(update={"threat": job().threat.model_copy(update={"norm": "l1", "eps": 1.0})})
    process = Process(ingested, tmp_path / "run", spec).run()
    assert process.report.rungs == ()
    assert process.report.winner == "aft"
    assert "does not support norm 'l1'" in process.report.refused["free-at"]
    spec = spec.model_copy(update={"defense": spec.defense.model_copy(update={"candidates": ("free-at",)})})
    with pytest.raises(UnsupportedError, match="no candidate can do this job"):
        Process(ingested, tmp_path / "none", spec).run()


def test_a_candidate_that_diverges_is_dropped(ingested, tmp_path, monkeypatch):
    def diverge(self, model, batch, moment, state):
        yield model(batch.x).sum() * float("nan")

    monkeypatch.setattr(Natural, "adversarial_losses", diverge)
    report = Process(ingested, tmp_path / "one", job(candidates=["natural", "aft"])).run().report
    first, second = report.rungs[0].trials
    assert (first.clean, first.kept, second.kept) == (None, False, True)
    assert "became" in first.reason
    monkeypatch.setattr(AFT, "adversarial_losses", diverge)
    with pytest.raises(DivergedError, match="every candidate diverged"):
        Process(ingested, tmp_path / "all", job(candidates=["natural", "aft"])).run()


@pytest.mark.long
def test_a_job_from_goal_to_report(tmp_path, arrays, example):
    """With the example's network: the search is in the report, and the file that ships is the winner's."""
    spec = {
        "model": {"architecture": "fmnist-cnn"},
        "defense": {**AUTO, "candidates": ["temper", "fast-at"], "goal": {"robust": 0.3, "max_clean_drop": 0.5}},
        "threat": {"eps": 0.05},
        "evaluation": {"samples": 60, "diagnose": False},
    }
    data, events = small_data(tmp_path / "data.npz", arrays), []
    report = run(*make_workdir(tmp_path / "run", spec, example / "checkpoint.pt", data), events.append)
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.search.winner in ("temper", "fast-at")
    assert report.search.least_clean == pytest.approx(report.before.clean.accuracy - 0.5)
    assert report.training.selected_by == "goal"
    assert any("were held out" in note for note in report.notes)
    assert report.cost.phases["search"].fb > sum(t.fb for rung in report.search.rungs for t in rung.trials)
    assert report.after.robust.total == 60
    fractions = [event["fraction"] for event in events if event["type"] == "progress"]
    assert fractions == sorted(fractions)
    phases = [event["phase"] for event in events if event["type"] == "phase"]
    assert phases == ["validating", "baseline", "training", "exporting", "evaluating"]
