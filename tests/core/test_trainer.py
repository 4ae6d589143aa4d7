"""The wiring of the training loop, step by step: what reaches the defense, the weights, the curves and the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import PrivateAttr
from torch import Tensor

from core.augmentation import augment
from core.averaging import WeightAverage
from core.data import ImageSet, hold_out, sample
from core.defenses.base import Batch, Moment, State
from core.defenses.free_at import FreeAT
from core.models import ImageShape
from core.models.classifier import Classifier
from core.rng import Rng, derive_seed
from core.run import _Run
from core.spec import JobSpec
from core.train import Trained
from core.validation import Validation
from tests.core.workdirs import make_workdir, save, small_data

BATCH_NORM = {
    "sequential": [
        {"conv2d": {"out_channels": 8, "kernel_size": 3, "stride": 3}},
        "batch_norm2d",
        "relu",
        "flatten",
        {"linear": {"out_features": 10}},
    ]
}
STEPS = 4
SIZES = {"batch_size": 50, "held_out": 20}  # of 220 images: four steps an epoch

Loss = Callable[[Classifier, Batch, Moment], Tensor]


@dataclass
class Seen:
    """One batch as the defense met it, and how far each of its updates moved the biases of the last layer."""

    epoch: int
    step: int
    batch: Batch
    moment: Moment
    mixed_precision: bool
    weights: dict[str, Tensor]
    moved: list[float] = field(default_factory=list)


def sum_of_biases(model: Classifier, batch: Batch, moment: Moment) -> Tensor:
    """Its gradient is 1 at each bias, so plain SGD moves them by the learning rate."""
    return model.net[-1].bias.sum()


def clean_cross_entropy(model: Classifier, batch: Batch, moment: Moment) -> Tensor:
    return F.cross_entropy(model(batch.x), batch.y)


class Recorder(FreeAT):
    """Goes over each batch as often as free-at does, but with a loss of its own, and writes down what it sees."""

    _loss: Loss = PrivateAttr()
    _seen: list[Seen] = PrivateAttr(default_factory=list)

    @classmethod
    def of(cls, loss: Loss = sum_of_biases, *, replays: int = 1) -> Recorder:
        recorder = cls(replays=replays)
        recorder._loss = loss
        return recorder

    def losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        epoch, step = divmod(len(self._seen), STEPS)
        weights = {key: value.clone() for key, value in model.net.state_dict().items()}
        seen = Seen(epoch, step, batch, moment, model.mixed_precision, weights)
        self._seen.append(seen)
        bias = list(model.net.parameters())[-1]
        for _ in range(self.replays):
            with torch.no_grad():
                before = bias.clone()
            yield self._loss(model, batch, moment)
            seen.moved.append((before - bias).mean().item())


def make_spec(architecture=BATCH_NORM, **training):
    sgd = {"name": "sgd", "lr": 0.5, "momentum": 0, "weight_decay": 0}
    plain = {"epochs": 3, "optimizer": sgd, "schedule": "constant", "augment": (), "select": "last", **SIZES}
    return {
        "model": {"architecture": architecture, "num_classes": 10},
        "defense": "free-at",
        "threat": {"eps": 0.05},
        "training": {**plain, **training},
        "evaluation": {"samples": 20, "diagnose": False},
    }


def prepare(tmp_path, arrays, spec, checkpoint=None, train=220):
    """The spec resolved, and its work folder; without a checkpoint the weights are random."""
    if checkpoint is None:
        torch.manual_seed(3)
        net = JobSpec.model_validate(spec).model.architecture.build(10, ImageShape(1, 28, 28))
        checkpoint = save(tmp_path / "model.pt", net.state_dict())
    return make_workdir(tmp_path / "run", spec, checkpoint, small_data(tmp_path / "data.npz", arrays, train, 20))


def fine_tune(spec, workdir, recorder: Recorder, watch: Callable[[Classifier], object] = id) -> tuple[_Run, Trained]:
    """The run's own phases but for the evaluations, with the recorder as the defense."""
    job = _Run(spec.model_copy(update={"defense": recorder}), workdir, lambda _: None, lambda: False)
    with job.phase("validating"):
        model = job.load()
    watch(model)
    with job.phase("training"):
        trained = job.train(model)
    job.export(trained)
    return job, trained


def measured(job: _Run, model: Classifier) -> dict[str, float]:
    """What a curve says of a network, measured anew from training and held-out images."""
    inputs, seed = job.inputs, job.spec.seed
    probe = sample(inputs.train, len(inputs.held_out), seed)
    validation = Validation(probe, inputs.held_out, 10, seed, inputs.evaluation_batch, inputs.device, job.spec.threat)
    return validation.measure(model)


@pytest.mark.parametrize(
    "eps_schedule",
    [{"name": "ramp", "hold": 0.1, "full": 0.6}, {"name": "decay", "until": 0.7}],
    ids=lambda s: s["name"],
)
def test_each_step_has_the_strength_of_its_own_time(eps_schedule, tmp_path, arrays):
    """The share of the run counts steps, not epochs, and scales the spec's eps; the curve has the last one's."""
    recorder = Recorder.of()
    spec, workdir = prepare(tmp_path, arrays, make_spec(eps_schedule=eps_schedule))
    _, trained = fine_tune(spec, workdir, recorder)
    schedule = spec.training.eps_schedule
    assert len(recorder._seen) == 3 * STEPS
    for seen in recorder._seen:
        expected = schedule.factor((seen.epoch + seen.step / STEPS) / 3)
        assert seen.moment.strength == pytest.approx(expected)
        assert seen.moment.threat.eps == pytest.approx(0.05 * expected)
        assert seen.moment.threat.norm == "linf"
        assert seen.moment.epochs == 3
    assert len({seen.moment.strength for seen in recorder._seen}) > 6
    ends = [seen.moment.strength for seen in recorder._seen[STEPS - 1 :: STEPS]]
    assert [curve.strength for curve in trained.state.history()] == pytest.approx(ends)


@pytest.mark.parametrize(
    ("replays", "epochs", "schedule"),
    [
        (1, 3, {"name": "slow-start-fast-decay"}),
        (1, 3, {"name": "step", "every": 0.5}),
        (2, 6, {"name": "cyclic"}),
        (2, 6, {"name": "step", "every": 1.25}),
        (2, 5, {"name": "step", "every": 0.75}),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_each_update_moves_the_weights_by_the_rate_in_the_middle_of_its_step(
    replays, epochs, schedule, tmp_path, arrays
):
    """Schedules count passes over the data: two an epoch of the loop, where each batch is replayed twice."""
    recorder = Recorder.of(replays=replays)
    spec, workdir = prepare(tmp_path, arrays, make_spec(epochs=epochs, schedule=schedule))
    _, trained = fine_tune(spec, workdir, recorder)
    assert len(recorder._seen) == 3 * STEPS
    rates = []
    for seen in recorder._seen:
        passed = (seen.epoch + (seen.step + 0.5) / STEPS) * replays
        rates.append(0.5 * spec.training.schedule.factor(passed, 3 * replays))
        assert seen.moved == pytest.approx([rates[-1]] * replays, rel=1e-4, abs=1e-6)
    assert len(set(rates)) > 3
    assert [curve.lr for curve in trained.state.history()] == pytest.approx(rates[STEPS - 1 :: STEPS])


@pytest.mark.parametrize("augmentation", [(), ("crop", "flip"), ("flip",), ("resized-crop", "flip")], ids=str)
def test_batches_are_the_training_images_augmented_anew_in_each_epoch(augmentation, tmp_path, arrays):
    """As the spec says, by random numbers of the seed, the epoch and the image; each image once an epoch."""
    recorder = Recorder.of()
    spec, workdir = prepare(tmp_path, arrays, make_spec(augment=augmentation, epochs=2))
    job, _ = fine_tune(spec, workdir, recorder)
    images, looks = job.inputs.train, {}
    for seen in recorder._seen:
        batch, rows = seen.batch, seen.batch.rows.numpy()
        x, y, ids = images.batch(rows, torch.device("cpu"))
        expected, _ = augment(x, augmentation, Rng.for_images(derive_seed(0, "train", seen.epoch), ids))
        assert torch.equal(batch.x, expected)
        assert torch.equal(batch.x, x) == (augmentation == ())
        assert torch.equal(batch.y, y)
        assert (batch.view is None) == ("resized-crop" in augmentation)
        looks |= {(seen.epoch, int(row)): image for row, image in zip(rows, batch.x, strict=True)}
    assert looks.keys() == {(epoch, row) for epoch in range(2) for row in range(200)}
    as_before = [torch.equal(looks[0, row], looks[1, row]) for row in range(200)]
    assert all(as_before) if augmentation == () else sum(as_before) < 150


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_reaches_every_moment(smoothing, tmp_path, arrays):
    recorder = Recorder.of(lambda model, batch, moment: moment.cross_entropy(model(batch.x), batch.y))
    spec, workdir = prepare(tmp_path, arrays, make_spec(label_smoothing=smoothing, epochs=1))
    fine_tune(spec, workdir, recorder)
    assert [seen.moment.label_smoothing for seen in recorder._seen] == [smoothing] * STEPS


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_mixed_precision_is_for_the_losses_only(mixed, tmp_path, arrays):
    """What the network really computes in, while it trains and while it is measured."""
    recorder, computed = Recorder.of(clean_cross_entropy), set()

    def watch(model):
        model.net.register_forward_hook(lambda net, _, logits: computed.add((net.training, logits.dtype)))

    spec, workdir = prepare(tmp_path, arrays, make_spec(mixed_precision=mixed, epochs=2))
    fine_tune(spec, workdir, recorder, watch)
    assert computed == {(True, torch.bfloat16 if mixed else torch.float32), (False, torch.float32)}
    assert {seen.mixed_precision for seen in recorder._seen} == {mixed}


@pytest.mark.parametrize("select", ["robust", "last"])
def test_the_epoch_that_ships_is_the_selected_one(select, tmp_path, arrays, example):
    """The first epoch hardly trains, the others unlearn: its weights ship only if robustness selects."""

    def unlearn(model, batch, moment):
        loss = clean_cross_entropy(model, batch, moment)
        return 1e-4 * loss if moment.epoch < 1 else -loss

    recorder = Recorder.of(unlearn)
    content = make_spec("fmnist-cnn", clip_norm=0.5, select=select) | {"threat": {"eps": 0.01}}
    spec, workdir = prepare(tmp_path, arrays, content, example / "checkpoint.pt")
    _, trained = fine_tune(spec, workdir, recorder)
    robust = [curve.held_out_robust for curve in trained.state.history()]
    assert trained.state.stopped is None
    assert robust[0] > max(robust[1:]) + 0.2, "training was to get worse"
    assert trained.state.best_epoch == (1 if select == "robust" else 3)
    first = recorder._seen[STEPS].weights  # as the second epoch found them
    last = torch.load(workdir.saved_training()[0], weights_only=True)["model"]
    shipped = torch.load(workdir.checkpoint("pt"), weights_only=True)
    expected, other = (first, last) if select == "robust" else (last, first)
    assert all(torch.equal(shipped[key], expected[key]) for key in shipped)
    assert not any(torch.equal(shipped[key], other[key]) for key in shipped)


def test_curves_are_of_training_and_of_held_out_images_under_the_whole_eps(tmp_path, arrays, example):
    """Held-out images have wrong labels, so one cannot pass for the other; the adversary ends without strength."""
    content = make_spec("fmnist-cnn", epochs=2, eps_schedule={"name": "decay", "until": 0.5})
    content["training"]["optimizer"] = {"name": "sgd", "lr": 1e-4}
    everything = ImageSet(arrays["x_train"], arrays["y_train"], np.arange(220))
    wrong = hold_out(everything, 20, 0)[1].ids
    labels = arrays["y_train"].copy()
    labels[wrong] = (labels[wrong] + 1) % 10
    spec, workdir = prepare(tmp_path, {**arrays, "y_train": labels}, content, example / "checkpoint.pt")
    job, trained = fine_tune(spec, workdir, Recorder.of(clean_cross_entropy))
    curve = trained.state.history()[-1]
    assert curve.strength == 0
    again = measured(job, job.exported())
    assert curve.model_dump(include={*again}) == again
    assert curve.train_clean > 0.7
    assert curve.train_robust < curve.train_clean - 0.2
    assert curve.held_out_clean < 0.3


def test_curves_and_file_are_of_the_average_with_statistics_of_its_own(tmp_path, arrays):
    """The uploaded network's BatchNorm statistics are far off, and have counted many batches."""
    torch.manual_seed(3)
    content = make_spec(ema=0.9, epochs=2, batch_size=125, held_out=50)  # of 550 images: 500 and 50
    net = JobSpec.model_validate(content).model.architecture.build(10, ImageShape(1, 28, 28))
    net[1].running_mean += 7
    net[1].running_var += 2
    net[1].num_batches_tracked += 100
    checkpoint = save(tmp_path / "model.pt", net.state_dict())
    spec, workdir = prepare(tmp_path, arrays, content, checkpoint, train=550)
    recorder = Recorder.of(clean_cross_entropy)
    job, trained = fine_tune(spec, workdir, recorder)
    shipped = job.exported()

    curve = trained.state.history()[-1]
    again = measured(job, shipped)
    assert curve.model_dump(include={*again}) == again
    current = job.inputs.build()
    current.net.load_state_dict(torch.load(workdir.saved_training()[0], weights_only=True)["model"])
    assert measured(job, current) != again, "the two networks were to differ"

    x, _, _ = job.inputs.train.batch(np.arange(500), torch.device("cpu"))
    output, norm = shipped.net[0](x), shipped.net[1]
    assert torch.allclose(norm.running_mean, output.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, output.var((0, 2, 3)), rtol=0.02)
    settled = WeightAverage(shipped, 0.9)
    settled.settle(job.inputs.train)
    for key, value in settled.model.net.state_dict().items():
        assert torch.equal(value, shipped.net.state_dict()[key]), key


def test_random_weights_are_the_seeds(tmp_path, arrays):
    """Equal seeds give equal weights, wherever torch's own generator stands; another seed gives others."""
    content = make_spec()
    content["model"]["weights"] = "random"
    spec, workdir = prepare(tmp_path, arrays, content)

    def weights(seed: int, elsewhere: int) -> list[Tensor]:
        torch.manual_seed(elsewhere)
        job = _Run(spec.model_copy(update={"seed": seed}), workdir, lambda _: None, lambda: False)
        return list(job.load().net.parameters())

    first, again, other = weights(1, 10), weights(1, 11), weights(2, 10)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.std() > 0)
