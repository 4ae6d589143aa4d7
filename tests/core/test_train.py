"""The training loop: resumes bit for bit, chooses on held-out images, and says when it diverges."""

from __future__ import annotations

import functools

import pytest
import torch

from core.defenses import DEFENSES
from core.errors import DivergedError, Stopped
from core.models import ImageShape
from core.models.small_cnn import SmallCNN
from core.outcome import ledger_path
from core.prepared import Workdir
from core.report import EpochCurve
from core.run import run
from core.selection import better
from core.train import Trainer, TrainingState
from tests.core.workdirs import make_workdir, save, small_data

BATCH_NORM = {
    "sequential": [
        {"conv2d": {"out_channels": 8, "kernel_size": 3, "stride": 2}},
        "batch_norm2d",
        "relu",
        "flatten",
        {"dropout": {"p": 0.2}},
        {"linear": {"out_features": 10}},
    ]
}
DEFENSE = {
    "aft": {"name": "aft", "steps": 2},
    "dra": {"name": "dra", "steps": 2, "adversarial_share": 0.7},
    "patch-augment": {"name": "patch-augment"},
}


def fresh(architecture) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    from core.spec import ModelSpec

    return ModelSpec(architecture=architecture).architecture.build(10, ImageShape(1, 28, 28)).state_dict()


def prepare(tmp_path, arrays, name: str, architecture=BATCH_NORM, **changes):
    spec = {
        "model": {"architecture": architecture},
        "defense": DEFENSE.get(name, name),
        "threat": {"eps": 0.05},
        "training": {"epochs": 3, "batch_size": 96, "held_out": 20, **changes},
        "evaluation": {"samples": 40, "allow_low_baseline": True, "diagnose": False},
    }
    checkpoint = save(tmp_path / "model.pt", fresh(architecture))
    return lambda folder: make_workdir(tmp_path / folder, spec, checkpoint, small_data(tmp_path / "data.npz", arrays))


class StopAfter:
    """Says stop at so many polls within training; it has to see the events."""

    def __init__(self, batches: int) -> None:
        self.left, self.training = batches, False

    def watch(self, event):
        if event["type"] == "phase":
            self.training = event["phase"] == "training"

    def __call__(self) -> bool:
        self.left -= self.training
        return self.left <= 0


def run_until(stop: StopAfter, spec, workdir: Workdir) -> None:
    with pytest.raises(Stopped):
        run(spec, workdir, stop.watch, stop)


def run_to_end(spec, workdir: Workdir, *stops: int):
    """Run, stopping after so many polls in training each time, then to the end."""
    for polls in stops:
        run_until(StopAfter(polls), spec, workdir)
    return run(spec, workdir, lambda _: None)


@pytest.mark.parametrize(
    ("defense", "optimizer"),
    [("aft", "adam"), ("aft", "sgd"), ("dra", "rmsprop"), ("patch-augment", "adam")],
)
def test_resumes_bit_for_bit(defense, optimizer, tmp_path, arrays):
    """Stopped in the middle of an epoch, and again at an epoch's end: the same bytes come out."""
    prepared = prepare(tmp_path, arrays, defense, optimizer=optimizer, augment=["crop", "flip"])
    whole = run_to_end(*prepared("whole"))
    parts = run_to_end(*prepared("parts"), 3, 4, 6)
    assert parts.output.files == whole.output.files
    drop = {"seconds"}
    assert [c.model_dump(exclude=drop) for c in parts.training.curves] == [
        c.model_dump(exclude=drop) for c in whole.training.curves
    ]
    assert parts.cost.phases["training"].fb == whole.cost.phases["training"].fb
    assert parts.after == whole.after


def test_a_resumed_run_goes_on_instead_of_beginning_again(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("run")
    run_until(StopAfter(5), spec, workdir)
    events = []
    run(spec, workdir, events.append)
    assert [event["epoch"] for event in events if event["type"] == "epoch"] == [2, 3]


def test_another_seed_gives_another_result(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("one")
    other = spec.model_copy(update={"seed": 1})
    _, again = prepare(tmp_path, arrays, "aft")("two")
    assert run(spec, workdir, lambda _: None).output.sha256 != run(other, again, lambda _: None).output.sha256


def test_divergence_names_the_way_out_and_keeps_the_last_good_epoch(tmp_path, arrays):
    prepared = prepare(
        tmp_path,
        arrays,
        "aft",
        architecture="fmnist-cnn",
        optimizer={"name": "sgd", "lr": 100},
        schedule={"name": "step", "every": 9},
    )
    spec, workdir = prepared("run")
    # the first epoch is gentle, then the rate explodes
    gentle = spec.training.model_copy(update={"optimizer": spec.training.optimizer.model_copy(update={"lr": 1e-4})})
    run_until(StopAfter(4), spec.model_copy(update={"training": gentle}), workdir)
    (saved,) = workdir.saved_training()
    state = torch.load(saved, weights_only=True)
    torch.save({**state, "spec": spec.digest()}, saved)
    workdir.baseline.unlink()
    ledger_path(workdir.root / "state", "before").unlink(missing_ok=True)
    assert state["best"]
    events = []
    with pytest.raises(DivergedError, match=r"became (nan|inf|NaN)") as error:
        run(spec, workdir, events.append)
    assert "lr" in error.value.hint
    assert {event["file"] for event in events if event["type"] == "artifact"} == {
        "checkpoint.pt",
        "checkpoint.safetensors",
    }
    kept = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert all(torch.equal(kept[key], state["best"][key]) for key in kept)


@pytest.mark.parametrize("name", [name for name in DEFENSES.names() if DEFENSES[name].trains])
def test_counts_the_passes_of_the_formula(name, tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, name)("run")
    report = run(spec, workdir, lambda _: None)
    images = report.training.train_images
    epochs = range(spec.training.epochs)
    expected = sum(images * spec.defense.fb_per_example(epoch / len(epochs)) for epoch in epochs)
    # the clean part of dra begins within an epoch: its formula is for whole ones
    slack = images * spec.defense.fb_per_example(0) if name == "dra" else 0
    assert abs(report.cost.phases["training"].fb - expected) <= slack
    assert report.cost.phases["training"].weight_backwards % images == 0 or name == "dra"


def test_dropout_draws_anew_at_each_step(tmp_path, arrays):
    torch.manual_seed(0)
    net = SmallCNN().build(10, ImageShape(1, 28, 28))
    x = torch.rand(4, 1, 28, 28)
    assert not torch.equal(net(x), net(x))


def curve(epoch: int, robust: float, clean: float) -> EpochCurve:
    return EpochCurve(
        epoch=epoch, lr=0, train_loss=0, train_clean=0, train_robust=0,
        held_out_clean=clean, held_out_robust=robust, seconds=0,
    )  # fmt: skip


def test_selection():
    assert better(curve(1, 0.1, 0.1), None, "robust")
    assert better(curve(2, 0.2, 0.1), curve(1, 0.1, 0.9), "robust")
    assert not better(curve(2, 0.1, 0.9), curve(1, 0.2, 0.1), "robust")
    assert better(curve(2, 0.2, 0.3), curve(1, 0.2, 0.2), "robust")
    assert better(curve(2, 0.0, 0.0), curve(1, 0.9, 0.9), "last")


def test_a_state_of_another_spec_is_refused(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("run")
    run_until(StopAfter(1), spec, workdir)
    with pytest.raises(ValueError, match="another spec"):
        run(spec.model_copy(update={"seed": 5}), workdir, lambda _: None)


def test_the_state_is_plain():
    assert TrainingState(**{"epoch": 1, "step": 2}).step == 2


def test_saves_within_an_epoch_too_and_a_sudden_death_after_that_changes_nothing(tmp_path, arrays, monkeypatch):
    """The timed save, at every step; then death without warning, as by kill -9, in the middle of an epoch."""
    whole = run_to_end(*prepare(tmp_path, arrays, "aft")("whole"))
    monkeypatch.setattr("core.run.Trainer", functools.partial(Trainer, save_seconds=0))
    spec, workdir = prepare(tmp_path, arrays, "aft")("killed")
    saves = []

    def die(event):
        if event["type"] == "state" and event["slot"] == "training.pt":
            saves.append((event["epoch"], event["step"]))
            if saves[-1] == (1, 2):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, workdir, die)
    assert saves == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert len(workdir.saved_training()) == 2
    assert run(spec, workdir, lambda _: None).output.files == whole.output.files
