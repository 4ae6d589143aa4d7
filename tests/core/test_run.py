"""The run as a whole: what is reported, and what is refused before any work."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pyarrow import parquet

from core.errors import BaselineTooLowError, DataMismatchError, Stopped, is_out_of_memory
from core.report import Report
from core.run import run
from tests.core.workdirs import make_workdir, save, small_data

SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 2},
    "threat": {"eps": 0.1},
    "training": {"epochs": 2, "batch_size": 50, "held_out": 30},
    "evaluation": {"samples": 60},
}


def prepared(tmp_path, arrays, example, **changes):
    data = small_data(tmp_path / "data.npz", arrays)
    return make_workdir(tmp_path / "run", {**SPEC, **changes}, example / "checkpoint.pt", data)


def test_the_report_is_whole_and_consistent(tmp_path, arrays, example):
    spec, workdir = prepared(tmp_path, arrays, example)
    events = []
    report = run(spec, workdir, events.append)
    assert Report.model_validate_json(report.model_dump_json()) == report
    for side in (report.before, report.after):
        assert side.clean.total == side.robust.total == 60
        assert side.robust.correct <= min(attack.correct for attack in side.attacks)
        assert all(attack.counted for attack in side.attacks)
        assert [attack.name for attack in side.attacks] == ["fgsm", "pgd"]
    change = report.change.robust
    assert change.gained - change.lost == report.after.robust.correct - report.before.robust.correct
    assert len(report.training.curves) == 2
    assert report.training.train_images == 370
    assert set(report.cost.phases) >= {"baseline", "training", "validation", "evaluating"}
    assert report.cost.total_fb == sum(phase.fb for phase in report.cost.phases.values())
    assert report.images.count == 60
    assert report.spec == spec
    phases = [event["phase"] for event in events if event["type"] == "phase"]
    assert phases == ["validating", "baseline", "training", "exporting", "evaluating"]
    fractions = [event["fraction"] for event in events if event["type"] == "progress"]
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-1] <= 1


def test_what_is_evaluated_is_the_exported_file(tmp_path, arrays, example):
    """Spoil the file between exporting and evaluating: the report must show it."""
    spec, workdir = prepared(tmp_path, arrays, example)

    def spoil(event):
        if event.get("phase") == "evaluating" and event["type"] == "phase":
            weights = torch.load(workdir.checkpoint("pt"), weights_only=True)
            torch.save({key: torch.zeros_like(value) for key, value in weights.items()}, workdir.checkpoint("pt"))

    assert run(spec, workdir, spoil).after.clean.accuracy < 0.3


def test_none_evaluates_only(tmp_path, arrays, example):
    spec, workdir = prepared(tmp_path, arrays, example, defense="none", training=None)
    report = run(spec, workdir, lambda _: None)
    assert (report.after, report.change, report.training, report.output) == (None, None, None, None)
    assert report.verdict.kind == "brittle"
    assert {path.name for path in workdir.output.iterdir()} == {"images.parquet", "examples.json", "model-card.md"}


def test_none_needs_no_training_images(tmp_path, arrays, example):
    data = tmp_path / "test-only.npz"
    np.savez(data, x_test=arrays["x_test"][:50], y_test=arrays["y_test"][:50])
    spec, workdir = make_workdir(
        tmp_path / "run", {**SPEC, "defense": "none", "training": None}, example / "checkpoint.pt", data
    )
    assert run(spec, workdir, lambda _: None).images.count == 50
    spec, workdir = make_workdir(tmp_path / "train", SPEC, example / "checkpoint.pt", data)
    with pytest.raises(DataMismatchError, match="no train split"):
        run(spec, workdir, lambda _: None)


@pytest.mark.parametrize(
    ("suite", "attacks", "eps", "counted"),
    [
        ("agarwal", ["fgsm", "i-fgsm", "pgd"], 0.3, [True, True, True]),
        ("jeddi", ["pgd"], 0.1, [True]),
        ("hou", ["pgd", "pgd"], 0.3, [True, True]),
    ],
)
def test_the_papers_suites_bring_their_own_eps(suite, attacks, eps, counted, tmp_path, arrays, example):
    changes = {"defense": "none", "training": None, "evaluation": {"suite": suite, "samples": 30}}
    spec, workdir = prepared(tmp_path, arrays, example, **changes)
    report = run(spec, workdir, lambda _: None)
    assert [attack.name for attack in report.before.attacks] == attacks
    assert [attack.counted for attack in report.before.attacks] == counted
    assert report.threat.eps == eps
    assert any("its paper's own" in note for note in report.notes) == (eps != 0.1)


def test_sides_share_frozen_images_and_the_batch_size_does_not_matter(tmp_path, arrays, example):
    reports = []
    for name, size in (("a", 7), ("b", 60)):
        (tmp_path / name).mkdir()
        changes = {"defense": "none", "training": None, "evaluation": {"samples": 60, "batch_size": size}}
        reports.append(run(*prepared(tmp_path / name, arrays, example, **changes), lambda _: None))
    assert reports[0].images == reports[1].images
    assert reports[0].before == reports[1].before


def test_wrong_normalisation_is_caught_at_the_baseline(tmp_path, arrays, example):
    model = {"architecture": "fmnist-cnn", "mean": [0.5], "std": [-0.001 + 0.0011]}
    spec, workdir = prepared(tmp_path, arrays, example, model={**model, "mean": [30.0]})
    with pytest.raises(BaselineTooLowError, match="with another normalisation: pixels from 0 to 1") as error:
        run(spec, workdir, lambda _: None)
    assert "near model.mean=[0.0] and model.std=[1.0]" in error.value.hint


def test_a_stop_in_the_first_look_does_not_skip_it(tmp_path, arrays, example):
    """Wherever it is stopped, wrong normalisation is found when it goes on."""
    model = {"architecture": "fmnist-cnn", "mean": [30.0], "std": [0.0001]}
    for polls in range(1, 9):
        (tmp_path / str(polls)).mkdir()
        spec, workdir = prepared(tmp_path / str(polls), arrays, example, model=model)
        calls = itertools.count(1)
        with pytest.raises(Stopped):
            run(spec, workdir, lambda _: None, lambda calls=calls, polls=polls: next(calls) >= polls)
        events = []
        with pytest.raises(BaselineTooLowError):
            run(spec, workdir, events.append)
        assert "preview" in [event["type"] for event in events]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_train": lambda x: np.repeat(x[..., None], 3, 3), "x_test": lambda x: np.repeat(x[..., None], 3, 3)},
            r"3 channel.* takes 1",
        ),
        ({"y_train": lambda y: np.arange(len(y)) % 13}, "labels up to 12, but the checkpoint has 10"),
    ],
    ids=["channels", "classes"],
)
def test_data_that_does_not_fit_the_checkpoint(change, message, tmp_path, arrays, example):
    bad = {key: change.get(key, lambda v: v)(value[:100]) for key, value in arrays.items()}
    np.savez(tmp_path / "bad.npz", **bad)
    spec, workdir = make_workdir(tmp_path / "run", SPEC, example / "checkpoint.pt", tmp_path / "bad.npz")
    with pytest.raises(DataMismatchError, match=message) as error:
        run(spec, workdir, lambda _: None)
    assert "bad.npz" in error.value.detail
    assert error.value.hint


def test_images_too_small_for_the_architecture(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3))
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "small.npz",
        x_test=rng.integers(0, 256, (10, 16, 16, 3), np.uint8), y_test=np.arange(10) % 3,
        x_train=rng.integers(0, 256, (10, 16, 16, 3), np.uint8), y_train=np.arange(10) % 3,
    )  # fmt: skip
    from core.models import ARCHITECTURES, ImageShape

    net = ARCHITECTURES["torchvision"](model="alexnet").build(3, ImageShape(3, 64, 64))
    spec = {"model": {"architecture": "torchvision/alexnet"}, "defense": "none"}
    spec, workdir = make_workdir(
        tmp_path / "r", spec, save(tmp_path / "a.pt", net.state_dict()), tmp_path / "small.npz"
    )
    with pytest.raises(DataMismatchError, match="cannot take images of 3x16x16"):
        run(spec, workdir, lambda _: None)


def test_a_batch_too_small_for_batchnorm_is_refused_before_any_work(tmp_path, arrays):
    layers = [
        {"conv2d": {"out_channels": 4, "kernel_size": 28}},
        "batch_norm2d",
        "flatten",
        {"linear": {"out_features": 10}},
    ]
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 28), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 10)
    )
    spec = {
        "model": {"architecture": {"sequential": layers}},
        "defense": "natural",
        "threat": {"eps": 0.1},
        "training": {"batch_size": 1},
        "evaluation": {"allow_low_baseline": True},
    }
    checkpoint, data = save(tmp_path / "a.pt", net.state_dict()), small_data(tmp_path / "data.npz", arrays)
    spec, workdir = make_workdir(tmp_path / "r", spec, checkpoint, data)
    events = []
    with pytest.raises(DataMismatchError, match="in batches of 1 while it trains: Expected more than 1 value"):
        run(spec, workdir, events.append)
    assert [event["phase"] for event in events if event["type"] == "phase"] == ["validating"]


def test_a_cpu_without_memory_is_told_from_a_fault():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_first_answer_comes_before_training(tmp_path, arrays, example):
    spec, workdir = prepared(tmp_path, arrays, example, evaluation={"samples": 60, "diagnose": False})
    events = []
    run(spec, workdir, events.append)
    kinds = [event.get("phase", event["type"]) for event in events if event["type"] in ("phase", "preview", "epoch")]
    assert kinds.index("preview") < kinds.index("training")
    (preview,) = [event for event in events if event["type"] == "preview"]
    assert [attack["name"] for attack in preview["attacks"]] == ["fgsm", "pgd"]
    assert preview["clean"]["total"] == 60
    assert preview["robust"]["accuracy"] < 0.1 < preview["clean"]["accuracy"]
    assert preview["seconds"] < 60


def test_every_image_is_in_the_parquet_file_and_the_counts_agree(tmp_path, arrays, example):
    spec, workdir = prepared(tmp_path, arrays, example, evaluation={"samples": 60, "diagnose": False})
    events = []
    report = run(spec, workdir, events.append)
    assert {"type": "artifact", "file": "images.parquet"} in events
    for name in ("curves.svg", "embedding.svg", "embedding.json"):
        assert {"type": "artifact", "file": name} in events
        assert (workdir.output / name).stat().st_size > 1000
    table = parquet.read_table(workdir.output / "images.parquet").to_pydict()
    assert len(table["id"]) == 60
    assert table["label"] == [int(arrays["y_test"][i]) for i in table["id"]]
    for name, side in (("before", report.before), ("after", report.after)):
        clean = [p == y for p, y in zip(table[f"{name}_clean_prediction"], table["label"], strict=True)]
        assert sum(clean) == side.clean.correct
        assert sum(table[f"{name}_robust"]) == side.robust.correct
        pgd = f"{name}_2_pgd"
        assert sum(table[f"{pgd}_fooled"]) == side.attacks[1].fooled
        for fooled, distance, label in zip(
            table[f"{pgd}_fooled"], table[f"{pgd}_distance"], table[f"{pgd}_prediction"], strict=True
        ):
            assert fooled == (distance is not None) == (label is not None)
            assert distance is None or distance <= 0.1 * (1 + 1e-4)


def test_a_run_stopped_within_an_attack_goes_on_there(tmp_path, arrays, example):
    """With the final evaluation killed, training is not repeated, nor are attacks that were done."""
    evaluation = {"suite": "quick", "samples": 60, "batch_size": 20, "diagnose": False}
    spec, workdir = prepared(tmp_path, arrays, example, evaluation=evaluation)
    phase, polls = "", 0

    def watch(event):
        nonlocal phase
        phase = event["phase"] if event["type"] == "phase" else phase

    def stop():
        nonlocal polls
        polls += phase == "evaluating"
        return polls > 2

    with pytest.raises(Stopped):
        run(spec, workdir, watch, stop)
    events = []
    report = run(spec, workdir, events.append)
    assert not [event for event in events if event["type"] == "epoch"]
    assert not [event for event in events if event["type"] == "preview"], "the baseline is done"
    (tmp_path / "again").mkdir()
    whole = run(*prepared(tmp_path / "again", arrays, example, evaluation=evaluation), lambda _: None)
    assert report.before == whole.before
    assert report.after == whole.after
    assert report.cost.phases["evaluating"].fb == whole.cost.phases["evaluating"].fb
    states = [event for event in events if event["type"] == "state"]
    assert all((event["epoch"], event["step"]) > (2, 0) for event in states), "further than any state of training"


def test_the_diagnosis_is_in_the_report_for_both_sides(tmp_path, arrays, example):
    spec, workdir = prepared(tmp_path, arrays, example, evaluation={"suite": "agarwal", "samples": 30})
    report = run(spec, workdir, lambda _: None)
    for side in (report.before, report.after):
        assert side.curve.images == 30
        codes = {sign.code: sign for sign in side.diagnosis}
        assert not codes["other-weights"].raised
        assert codes["short-reach"].raised, "ten steps of 0.01 at eps 0.3"
    assert "transfer-beats-gradients" in {sign.code for sign in report.after.diagnosis}
    assert ("before", "short-reach") in {(sign.side, sign.code) for sign in report.diagnostics}
    assert all(sign.raised for sign in report.diagnostics)


def test_dying_at_the_same_place_again_is_no_progress(tmp_path, arrays, example, monkeypatch):
    """Else a job that always dies after its attacks would be tried for ever."""
    spec, workdir = prepared(tmp_path, arrays, example, evaluation={"samples": 60, "diagnose": False})
    monkeypatch.setattr("core.run.SAVE_SECONDS", 0)
    places = []

    def note(event):
        if event["type"] == "state":
            places.append((event["epoch"], event["step"]))

    def die(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("core.outcome.accuracy_curve", die)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                run(spec, workdir, note)
    assert places == [(-1, 1), (-1, 2)], "one batch for each attack, told once"
    run(spec, workdir, note)
    assert places == sorted(places)


def test_what_follows_the_attacks_is_kept_and_paid_once(tmp_path, arrays, example):
    """Stopped at every few passes, within diagnosis and corruptions too: the same report, at about the same cost."""
    evaluation = {"samples": 30, "corruptions": True}
    changes = {"defense": "none", "training": None, "evaluation": evaluation}
    whole = run(*prepared(tmp_path, arrays, example, **changes), lambda _: None)
    assert whole.before.corruptions.images == 30
    (tmp_path / "again").mkdir()
    spec, workdir = prepared(tmp_path / "again", arrays, example, **changes)
    for polls in (30, 300, 900, 1500, 50, 80):
        calls = itertools.count()
        try:
            run(spec, workdir, lambda _: None, lambda calls=calls, polls=polls: next(calls) > polls)
        except Stopped:
            continue
        break
    report = run(spec, workdir, lambda _: None)
    assert report.before == whole.before
    assert report.cost.phases["baseline"].fb <= whole.cost.phases["baseline"].fb * 1.02
