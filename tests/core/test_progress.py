"""Progress: fractions of the whole run, and the speed of training."""

from __future__ import annotations

import pytest

from core import progress
from core.models import ImageShape
from core.progress import Progress
from core.spec import JobSpec
from core.suites import quick


@pytest.fixture
def clock(monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    return clock


@pytest.fixture
def counted():
    spec = JobSpec.model_validate(
        {"model": {"architecture": "fmnist-cnn"}, "defense": "aft", "training": {"epochs": 4}}
    )
    suite = quick(spec.threat, ImageShape(1, 28, 28))
    return Progress(spec, images=10, num_classes=10, suite=suite, train_images=200, held_out=50)


def test_the_pace_of_training_leaves_validation_out(counted, clock):
    events = []
    report = counted.reporter("training", events.append)
    for now, share, epoch in [(100, 0.125, 0), (110, 0.25, 0), (160, 0.375, 1), (165, 0.5, 1)]:
        clock["now"] = now
        report(share, epoch)
    assert [event["images_per_second"] for event in events] == [None, 10, 10, 20]
    assert [event["epoch_seconds"] for event in events] == [None, 20, 20, 10]


def test_fractions_go_on_from_phase_to_phase(counted, clock):
    events = []
    for phase in ("baseline", "training", "evaluating"):
        report = counted.reporter(phase, events.append)
        for share in (0.0, 0.5, 1.0):
            clock["now"] += 1
            report(share, 0)
    fractions = [event["fraction"] for event in events]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert fractions[2] == fractions[3]
    assert events[-1]["eta_seconds"] == 0
    assert "images_per_second" not in events[-1]
