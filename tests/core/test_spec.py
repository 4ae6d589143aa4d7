"""JobSpec: published defaults, fractions, and errors that name the field."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from core.defenses import DEFENSES
from core.spec import JobSpec, TrainingSpec, merge
from core.threat import ThreatModel
from core.values import StepSize, resolve_step_size


def spec(architecture="fmnist-cnn", defense="aft", **more) -> JobSpec:
    return JobSpec.model_validate({"model": {"architecture": architecture}, "defense": defense, **more})


def test_what_is_left_out_is_the_published_set_up():
    resolved = spec()
    assert resolved.threat == ThreatModel(norm="linf", eps=0.1)
    assert resolved.training.epochs == 10
    assert resolved.training.optimizer.model_dump() == {
        "name": "adam", "lr": 1e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999,
    }  # fmt: skip
    assert resolved.training.schedule.name == "slow-start-fast-decay"
    assert resolved.training.augment == ()
    cifar = spec("resnet18-cifar", "dra")
    assert cifar.threat.eps == pytest.approx(8 / 255)
    assert cifar.training.epochs == 60
    assert cifar.training.optimizer.model_dump() == {"name": "sgd", "lr": 0.01, "weight_decay": 2e-4, "momentum": 0.9}
    assert cifar.training.augment == ("crop", "flip")
    assert cifar.defense.attack.p == pytest.approx(1 / 3)
    assert spec("mnist-cnn", "dra").defense.attack.steps == 20
    assert spec("vgg16-cifar", "patch-augment").training.optimizer.lr == 1e-4
    assert spec("vgg16-cifar", "patch-augment", training={"optimizer": "rmsprop"}).training.optimizer.lr == 1e-4


def test_dra_on_grey_images():
    """30 of 50 epochs at a constant strength; what is given alone keeps the rest of the paper's adversary."""
    published = spec("mnist-cnn", "dra")
    assert published.training.schedule.milestones == (0.6,)
    assert published.training.eps_schedule.name == "constant"
    assert published.defense.attack.mean_change == 0.1
    weaker = spec("mnist-cnn", {"name": "dra", "attack": {"mean_change": 0.04}}).defense.attack
    assert (weaker.mean_change, weaker.steps, weaker.p) == (0.04, 20, pytest.approx(2 / 3))
    other = spec("mnist-cnn", {"name": "dra", "attack": "pgd"}).defense.attack
    assert other.model_dump() == {"name": "pgd", "steps": 10, "step_size": "2.5*eps/steps"}


@pytest.mark.parametrize(
    ("defense", "more", "sentence"),
    [
        ("patch-augment", {"training": {"eps_schedule": "decay"}}, "has no adversary: leave out training.eps_schedule"),
        ("free-at", {"threat": {"norm": "l1", "eps": 5}}, "'free-at' does not support norm 'l1'; it knows: l2, linf"),
        ("atta", {"training": {"augment": ["resized-crop"]}}, "has to undo the augmentation"),
        ("aft", {"training": {"augment": ["flip", "flip"]}}, "name each augmentation once"),
        ("aft", {"training": {"eps_schedule": {"name": "ramp", "hold": 0.6}}}, "has to be less than full"),
        ({"name": "trades", "attack": {"name": "pgd"}}, {}, "kl-pgd"),
        ({"name": "pgd-at", "steps": 5}, {}, "Extra inputs are not permitted"),
        ({"name": "yopo", "full_passes": 0}, {}, "greater than or equal to 1"),
        ("aft", {"training": {"ema": 1.0}}, "less than 1"),
        ("natural", {"training": {"patience": 2}}, "waits for robustness"),
    ],
)
def test_what_a_defense_cannot_do_is_refused_with_a_sentence(defense, more, sentence):
    with pytest.raises(ValidationError, match=sentence):
        spec("resnet18-cifar", defense, **more)


def test_training_from_scratch_says_how_many_classes():
    with pytest.raises(ValidationError, match=r"model\.num_classes: without a checkpoint"):
        JobSpec.model_validate({"model": {"architecture": "fmnist-cnn", "weights": "random"}, "defense": "natural"})
    with pytest.raises(ValidationError, match="only evaluates"):
        JobSpec.model_validate(
            {"model": {"architecture": "fmnist-cnn", "weights": "random", "num_classes": 10}, "defense": "none"}
        )


@pytest.mark.parametrize("architecture", ["fmnist-cnn", "resnet18-cifar", "torchvision/resnet50"])
@pytest.mark.parametrize("defense", DEFENSES.names())
def test_every_defense_resolves_with_nothing_else_given(defense, architecture):
    assert spec(architecture, defense).defense.name == defense


def test_parameters_of_an_inner_algorithm_can_be_given_alone():
    assert spec(defense={"name": "pgd-at", "attack": {"steps": 3}}).defense.attack.steps == 3
    assert spec("resnet18-cifar", {"name": "dra", "attack": {"p": 0.5}}).defense.attack.p == 0.5
    assert spec(defense="dra", training={"schedule": {"gamma": 0.5}}).training.schedule.gamma == 0.5
    assert spec(training={"schedule": "step"}).training.schedule.name == "step"


def test_what_is_laid_over_a_name_keeps_the_name():
    assert merge({"optimizer": "rmsprop"}, {"optimizer": {"lr": 1e-3}}) == {
        "optimizer": {"name": "rmsprop", "lr": 1e-3}
    }
    assert merge({"a": {"name": "x", "b": 1}}, {"a": {"name": "y"}}) == {"a": {"name": "y"}}
    assert merge({"a": {"name": "x", "b": 1}}, {"a": "y"}) == {"a": "y"}


@pytest.mark.parametrize(("epochs", "replays", "of_the_loop"), [(16, 8, 2), (10, 4, 3), (1, 8, 1)])
def test_epochs_of_free_at_count_replays(epochs, replays, of_the_loop):
    free = spec("fmnist-cnn", {"name": "free-at", "replays": replays}, training={"epochs": epochs})
    assert free.epochs == of_the_loop
    assert free.fb_per_example(0) == replays
    assert spec(training={"epochs": epochs}).epochs == epochs


def test_a_custom_network_has_no_published_eps():
    layers = {"sequential": ["flatten", {"linear": {"out_features": 10}}]}
    with pytest.raises(ValidationError, match=r"threat\.eps"):
        spec(layers)
    assert spec(layers, threat={"eps": 0.1}).training.augment == ()


def test_given_values_win():
    resolved = spec(
        "mnist-cnn", {"name": "dra", "attack": {"steps": 3}},
        threat={"eps": "8/255"}, training={"optimizer": {"name": "adam", "lr": 0.5}, "epochs": 1},
    )  # fmt: skip
    assert resolved.defense.attack.steps == 3
    assert resolved.defense.attack.p == pytest.approx(2 / 3)
    assert resolved.threat.eps == 8 / 255
    assert resolved.training.optimizer.lr == 0.5


def test_none_does_not_train():
    assert spec(defense="none").training is None
    with pytest.raises(ValidationError, match="does not train"):
        spec(defense="none", training={"epochs": 1})


@pytest.mark.parametrize("name", ["aft", "dra", "patch-augment", "none"])
def test_the_stored_form_resolves_to_itself(name):
    resolved = spec("timm/resnet18", name)
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"architecture": "fmnist-cn"}}, "fmnist-cnn"),
        ({"model": {"architecture": "timm/resnet5"}}, "resnet50"),
        ({"defense": "aftt"}, "patch-augment"),
        ({"defense": {"name": "aft", "steps": 0}}, "greater than or equal to 1"),
        ({"defense": {"name": "aft", "stepz": 1}}, "Extra inputs"),
        ({"threat": {"eps": -1}}, "greater than or equal to 0"),
        ({"threat": {"eps": "1/0"}}, "denominator is 0"),
        ({"threat": {"eps": "nan"}}, "eps"),
        ({"threat": {"norm": "l0", "eps": 1}}, "linf"),
        ({"threat": {"norm": "l2"}}, "Field required"),
        ({"training": {"optimizer": "adamw"}}, "rmsprop"),
        ({"training": {"epochs": 0}}, "greater than or equal to 1"),
        ({"model": {"architecture": "fmnist-cnn", "mean": [0.5]}}, "go together"),
        ({"evaluation": {"suite": "easy"}}, "quick"),
        ({"sed": 1}, "Extra inputs"),
    ],
)
def test_bad_values_are_refused(change, message):
    body = {"model": {"architecture": "fmnist-cnn"}, "defense": "aft", **change}
    with pytest.raises(ValidationError, match=message) as error:
        JobSpec.model_validate(body)
    assert error.value.error_count() == 1, "one mistake, one message"


@pytest.mark.parametrize(
    ("text", "value"),
    [("2/255", 2 / 255), (0.01, 0.01), ("eps/4", 0.025), ("2.5*eps/steps", 0.0125), ("eps", 0.1), ("0.5*eps", 0.05)],
)
def test_step_sizes(text, value):
    parsed = TypeAdapter(StepSize).validate_python(text)
    assert resolve_step_size(parsed, eps=0.1, steps=20) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["eps/0x4", "steps", "-0.1", 0, "eps*2", "__import__", "eps/0", "0*eps", float("nan"), float("inf")]
)
def test_bad_step_sizes(text):
    with pytest.raises(ValidationError):
        TypeAdapter(StepSize).validate_python(text)


@pytest.mark.parametrize(
    "more", [{"name": "a"}, {"tags": {"a": "b"}}, {"devices": 8}, {"queue": "gpu"}, {"evaluation": {"suite": "quick"}}]
)
def test_saved_states_fit_whatever_changes_no_number(more):
    assert spec(**more).digest() == spec().digest()


@pytest.mark.parametrize(
    "more",
    [
        {"seed": 8},
        {"defense": "pgd-at"},
        {"defense": {"name": "aft", "steps": 7}},
        {"training": {"optimizer": {"lr": 0.002}}},
        {"threat": {"eps": 0.2}},
        {"evaluation": {"suite": "standard"}},
        {"architecture": "mnist-cnn"},
    ],
)
def test_saved_states_fit_no_other_job(more):
    assert spec(**more).digest() != spec().digest()


def test_saved_states_outlive_a_version_that_adds_a_field():
    class NewerTraining(TrainingSpec):
        new: bool = False

    class Newer(JobSpec):
        training: NewerTraining | None = None
        also_new: int = 3

    assert Newer.model_validate_json(spec().model_dump_json()).digest() == spec().digest()
