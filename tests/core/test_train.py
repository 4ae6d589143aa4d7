"""The training loop: resumes bit for bit, chooses on held-out images, and says when it diverges."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from core.defenses import DEFENSES
from core.errors import DivergedError, Stopped, UnsupportedError
from core.models import ImageShape
from core.outcome import ledger_path
from core.prepared import Workdir
from core.report import EpochCurve
from core.run import _Run, run
from core.selection import better, collapsed, out_of_patience
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
TWO_STEPS = {"attack": {"name": "pgd", "steps": 2}}
DEFENSE = {
    "aft": {"name": "aft", "steps": 2},
    "atta": {"name": "atta", "reset_every": 2},
    "dra": {"name": "dra", "attack": {"name": "dra", "steps": 2}, "replay": "dual"},
    "dra-alternate": {"name": "dra", "attack": {"name": "dra", "steps": 2}, "replay": "alternate"},
    "free-at": {"name": "free-at", "replays": 2},
    "ifgsm-at": {"name": "ifgsm-at", "steps": 2},
    "mart": {"name": "mart", **TWO_STEPS},
    "mixed": {"name": "mixed", **TWO_STEPS},
    "pgd-at": {"name": "pgd-at", **TWO_STEPS},
    "rst": {"name": "rst", **TWO_STEPS},
    "temper": {"name": "temper", "steps": 2},
    "trades": {"name": "trades", "attack": {"name": "kl-pgd", "steps": 2}},
    "yopo": {"name": "yopo", "full_passes": 2, "layer_steps": 2},
}
AROUND = {
    "ema": 0.9,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "mixed_precision": True,
    "eps_schedule": {"name": "ramp", "hold": 0.1, "full": 0.6},
}
TRAINING = [name for name in DEFENSES.names() if DEFENSES[name].trains]


def fresh(architecture) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    from core.spec import ModelSpec

    return ModelSpec(architecture=architecture).architecture.build(10, ImageShape(1, 28, 28)).state_dict()


def passes(name: str) -> int:
    """How often this defense goes over the data in an epoch of the loop."""
    content = DEFENSE.get(name, {"name": name})
    return DEFENSES[content["name"]].model_validate(content).passes


def prepare(tmp_path, arrays, name: str, architecture=BATCH_NORM, **changes):
    spec = {
        "model": {"architecture": architecture},
        "defense": DEFENSE.get(name, name),
        "threat": {"eps": 0.05},
        "training": {"epochs": 3 * passes(name), "batch_size": 96, "held_out": 20, **changes},
        "evaluation": {"samples": 40, "allow_low_baseline": True, "diagnose": False},
    }
    checkpoint = save(tmp_path / "model.pt", fresh(architecture))
    return lambda folder: make_workdir(tmp_path / folder, spec, checkpoint, small_data(tmp_path / "data.npz", arrays))


class StopAfter:
    """Says stop at so many polls within training, or after so many of its epochs; it has to see the events."""

    def __init__(self, polls: int, epochs: int = 0) -> None:
        self.left, self.epochs, self.training = polls, epochs, False

    def watch(self, event):
        if event["type"] == "phase":
            self.training = event["phase"] == "training" and self.epochs == 0
        if event["type"] == "epoch":
            self.epochs -= 1
            self.training |= self.epochs == 0

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


def fine_tune(spec, workdir: Workdir, *stops: int):
    """The run's own phases but for the evaluations, stopped and gone on with as often as asked.

    Returns: the state, its cost, and the bytes of the checkpoint.
    """
    for polls in (*stops, 10**9):
        stop = StopAfter(polls)
        job = _Run(spec, workdir, stop.watch, stop)
        with job.phase("validating"):
            model = job.load()
        try:
            with job.phase("training"):
                trained = job.train(model)
        except Stopped:
            assert polls < 10**9
        else:
            assert polls == 10**9, "it should have been stopped"
    job.export(trained)
    return trained.state, job.costs["training"], workdir.checkpoint("pt").read_bytes()


@pytest.mark.parametrize(
    ("defense", "changes"),
    [
        *((name, {}) for name in TRAINING),
        ("natural", {"optimizer": "sgd"}),
        ("natural", {"optimizer": "rmsprop"}),
        ("aft", AROUND),
        ("yopo", {"ema": 0.9}),
    ],
)
def test_resumes_bit_for_bit(defense, changes, tmp_path, arrays):
    """Stopped in the middle of an epoch, and again at an epoch's end: the same bytes come out."""
    prepared = prepare(tmp_path, arrays, defense, augment=["crop", "flip"], **changes)
    whole, whole_cost, whole_bytes = fine_tune(*prepared("whole"))
    parts, parts_cost, parts_bytes = fine_tune(*prepared("parts"), 3, 4, 29, 40)
    assert parts_bytes == whole_bytes
    drop = {"seconds"}
    assert [c.model_dump(exclude=drop) for c in parts.history()] == [
        c.model_dump(exclude=drop) for c in whole.history()
    ]
    assert parts_cost.fb == whole_cost.fb


def test_a_whole_run_that_was_stopped_comes_to_the_same_report(tmp_path, arrays):
    prepared = prepare(tmp_path, arrays, "aft")
    whole = run_to_end(*prepared("whole"))
    parts = run_to_end(*prepared("parts"), 3, 4, 40)
    assert parts.output == whole.output
    assert parts.after == whole.after
    assert parts.cost.phases["training"].fb == whole.cost.phases["training"].fb


def test_a_resumed_run_goes_on_instead_of_beginning_again(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("run")
    run_until(StopAfter(2, epochs=1), spec, workdir)
    events = []
    run(spec, workdir, events.append)
    assert [event["epoch"] for event in events if event["type"] == "epoch"] == [2, 3]


def test_a_stop_during_validation_is_heard_and_keeps_the_whole_epoch(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("run")
    run_until(StopAfter(4 + 3), spec, workdir)
    (saved,) = workdir.saved_training()
    assert torch.load(saved, weights_only=True)["state"]["step"] == 4
    events = []
    run(spec, workdir, events.append)
    first = next(event for event in events if event["type"] == "epoch")
    assert first["lr"] > 0
    assert first["strength"] == 1


def test_another_seed_gives_another_result(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "aft")("one")
    other = spec.model_copy(update={"seed": 1})
    _, again = prepare(tmp_path, arrays, "aft")("two")
    assert run(spec, workdir, lambda _: None).output.sha256 != run(other, again, lambda _: None).output.sha256


@pytest.mark.parametrize(
    ("architecture", "batch_size"),
    [("fmnist-cnn", 96), (BATCH_NORM, 4)],
    ids=["in the loss", "in crafting"],
)
def test_divergence_names_the_way_out_and_keeps_the_last_good_epoch(architecture, batch_size, tmp_path, arrays):
    """Without BatchNorm the loss overflows; with it, crafting is the first to meet weights that are not finite."""
    prepared = prepare(
        tmp_path,
        arrays,
        "aft",
        architecture=architecture,
        batch_size=batch_size,
        optimizer={"name": "sgd", "lr": 100},
        schedule={"name": "step", "every": 9},
    )
    spec, workdir = prepared("run")
    # the first epoch is gentle, then the rate explodes
    gentle = spec.training.model_copy(update={"optimizer": spec.training.optimizer.model_copy(update={"lr": 1e-4})})
    run_until(StopAfter(1, epochs=1), spec.model_copy(update={"training": gentle}), workdir)
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


PASSES = {
    "aft": 3, "atta": 2, "dra": 4, "fast-at": 2, "fgsm-at": 2, "free-at": 2, "ifgsm-at": 3, "mart": 4, "mixed": 4,
    "natural": 1, "patch-augment": 2, "pgd-at": 3, "rst": 4, "temper": 3, "trades": 4, "yopo": 2,
}  # fmt: skip
"""FB on one example in an epoch, by the formulas K + 1, T + 2, m, ... with the steps of DEFENSE."""


@pytest.mark.parametrize("name", TRAINING)
def test_counts_the_passes_of_the_formula(name, tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, name, eps_schedule={"name": "constant"})("run")
    images = 400 - 20
    _, cost, _ = fine_tune(spec, workdir)
    assert cost.fb == 3 * images * PASSES[name]
    assert spec.fb_per_example(0) == PASSES[name]
    assert cost.weight_backwards % images == 0


def test_a_strength_of_zero_costs_one_pass(tmp_path, arrays):
    """Hou's decay: the last third of this run trains on clean images only."""
    spec, workdir = prepare(tmp_path, arrays, "dra", eps_schedule={"name": "decay", "until": 2 / 3})("run")
    state, cost, _ = fine_tune(spec, workdir)
    assert cost.fb == 380 * (4 + 4 + 1)
    assert state.history()[-1].strength == 0


def test_the_average_is_what_ships(tmp_path, arrays):
    spec, workdir = prepare(tmp_path, arrays, "natural", ema=0.9, select="last")("run")
    fine_tune(spec, workdir)
    saved = torch.load(workdir.saved_training()[0], weights_only=True)
    shipped = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert all(torch.equal(shipped[key], saved["average"]["net"][key]) for key in shipped)
    assert any(not torch.equal(shipped[key], saved["model"][key]) for key in shipped)


@pytest.mark.parametrize(("defense", "updates"), [("natural", 1), ("yopo", 1), ("dra-alternate", 2), ("free-at", 2)])
def test_clipping_bounds_each_step(defense, updates, tmp_path, arrays):
    """Plain SGD moves the weights by lr times the clipped gradient at each update, here in nearly one direction."""
    sgd = {"name": "sgd", "lr": 0.5, "momentum": 0, "weight_decay": 0}
    changes = {"optimizer": sgd, "schedule": "constant", "clip_norm": 1e-3, "batch_size": 400}
    spec, workdir = prepare(tmp_path, arrays, defense, epochs=passes(defense), **changes)("run")
    fine_tune(spec, workdir)
    shipped, before = torch.load(workdir.checkpoint("pt"), weights_only=True), fresh(BATCH_NORM)
    weights = [key for key in shipped if "running" not in key and "num_batches" not in key]
    moved = torch.cat([(shipped[key] - before[key]).flatten() for key in weights]).norm()
    assert moved.item() == pytest.approx(updates * 0.5 * 1e-3, rel=0.05)


def test_patience_ends_training_and_says_so(tmp_path, arrays):
    changes = {"epochs": 9, "patience": 2, "optimizer": {"name": "adam", "lr": 1e-12}}
    spec, workdir = prepare(tmp_path, arrays, "aft", **changes)("run")
    report = run(spec, workdir, lambda _: None)
    assert report.training.stopped == "patience"
    assert len(report.training.curves) == 3


def test_a_collapse_ends_training_keeps_the_best_epoch_and_says_so(tmp_path, arrays, example):
    """fgsm-at at a large rate learns to fool its single step: accuracy under FGSM soars, under PGD it falls."""
    spec = {
        "model": {"architecture": "fmnist-cnn"},
        "defense": "fgsm-at",
        "threat": {"eps": 0.2},
        "training": {"epochs": 12, "batch_size": 25, "held_out": 150, "optimizer": {"name": "muon", "lr": 0.01},
                     "schedule": "constant", "select": "last"},
        "evaluation": {"samples": 100, "diagnose": False},
    }  # fmt: skip
    data = small_data(tmp_path / "data.npz", arrays, train=1500)
    resolved, workdir = make_workdir(tmp_path / "run", spec, example / "checkpoint.pt", data)
    report = run(resolved, workdir, lambda _: None)
    curves = report.training.curves
    assert report.training.stopped == "catastrophic-overfitting"
    assert len(curves) < 12
    assert curves[-1].held_out_fgsm > curves[-1].held_out_robust + 0.2
    assert report.training.selected_epoch == len(curves) - 1
    assert any("catastrophic overfitting" in note for note in report.notes)


def curve(epoch: int, robust: float, clean: float, fgsm: float = 0) -> EpochCurve:
    return EpochCurve(
        epoch=epoch, lr=0, train_loss=0, train_clean=0, train_robust=0,
        held_out_clean=clean, held_out_robust=robust, held_out_fgsm=fgsm, strength=1, seconds=0,
    )  # fmt: skip


def test_selection():
    assert better(curve(1, 0.1, 0.1), None, "robust")
    assert better(curve(2, 0.2, 0.1), curve(1, 0.1, 0.9), "robust")
    assert not better(curve(2, 0.1, 0.9), curve(1, 0.2, 0.1), "robust")
    assert better(curve(2, 0.2, 0.3), curve(1, 0.2, 0.2), "robust")
    assert better(curve(2, 0.0, 0.0), curve(1, 0.9, 0.9), "last")


def test_a_collapse_is_told_from_a_model_that_became_weaker():
    earlier = [curve(1, 0.3, 0.8, 0.4), curve(2, 0.4, 0.8, 0.5)]
    assert collapsed(curve(3, 0.05, 0.8, 0.7), earlier, held_out=100)
    assert not collapsed(curve(3, 0.05, 0.8, 0.1), earlier, held_out=100), (
        "weaker under one step too: clean images only, for one"
    )
    assert not collapsed(curve(3, 0.3, 0.8, 0.7), earlier, held_out=100), "most of it is still there"
    assert not collapsed(curve(1, 0.05, 0.9, 0.4), [], held_out=100), "nothing better was there before"
    weaker = curve(3, 0.05, 0.8, 0.7).model_copy(update={"strength": 0.0})
    assert not collapsed(weaker, earlier, held_out=100), "a schedule that ends on clean images is meant to lose"
    assert not collapsed(curve(3, 0.05, 0.8, 0.7), earlier, held_out=12), "of so few images some fall by chance"


def test_patience_counts_epochs_without_a_better_one():
    robust = [0.1, 0.3, 0.2, 0.3, 0.3]
    curves = [curve(epoch, value, 0.5) for epoch, value in enumerate(robust)]
    assert out_of_patience(curves, 3)
    assert not out_of_patience(curves, 4)
    assert not out_of_patience(curves[:3], 3)
    assert not out_of_patience(curves, None)
    ramp = [c.model_copy(update={"strength": s}) for c, s in zip(curves, (0, 0, 0, 0.5, 1), strict=True)]
    assert not out_of_patience(ramp, 1), "before the adversary is at its strongest nothing can be expected"


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
    saves, slots = [], []

    def die(event):
        if event["type"] == "state" and event["slot"].startswith("training-"):
            saves.append((event["epoch"], event["step"]))
            slots.append(event["slot"])
            if saves[-1] == (1, 2):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, workdir, die)
    assert saves == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2)]
    assert slots[:4] == ["training-1.pt", "training-0.pt"] * 2, "by turns: the one before is kept, too"
    assert len(workdir.saved_training()) == 2
    assert run(spec, workdir, lambda _: None).output.files == whole.output.files


def test_a_network_that_the_defense_cannot_run_on_is_refused_before_any_work(tmp_path):
    """CrossViT has two first layers; yopo needs one. Said while validating, before anything is attacked or trained."""
    import timm

    net = timm.create_model("crossvit_9_240", num_classes=3)
    checkpoint = save(tmp_path / "net.pt", net.state_dict())
    draw = np.random.default_rng(0)
    images = {name: draw.integers(0, 256, (12, 240, 240, 3), np.uint8) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "data.npz", **images, y_train=np.arange(12) % 3, y_test=np.arange(12) % 3)
    spec = {"model": {"architecture": "timm/crossvit_9_240"}, "defense": "yopo", "threat": {"eps": "2/255"}}
    resolved, workdir = make_workdir(tmp_path / "run", spec, checkpoint, tmp_path / "data.npz")
    events = []
    with pytest.raises(UnsupportedError, match="'yopo' needs a network with one first layer") as error:
        run(resolved, workdir, events.append)
    assert "fast-at" in error.value.hint
    assert [event["phase"] for event in events if event["type"] == "phase"] == ["validating"]
