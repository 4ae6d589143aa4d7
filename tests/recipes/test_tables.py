"""Every row that the papers print is in exactly one recipe, and every recipe says what the row says."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

from core.corruptions import HOU
from core.models.base import ImageShape
from core.suites import SUITES
from recipes import catalog

TABLES = Path(__file__).parents[1] / "data" / "tables.csv"
PAPERS = {"agarwal2021": "agarwal", "jeddi2020": "jeddi", "hou2022": "hou"}
"""Papers with the suite that is each one's own."""

DATASETS = {
    "F-MNIST": ("fashion-mnist", ImageShape(1, 28, 28), 10),
    "MNIST": ("mnist", ImageShape(1, 28, 28), 10),
    "CIFAR-10": ("cifar10", ImageShape(3, 32, 32), 10),
    "CIFAR-10-C": ("cifar10", ImageShape(3, 32, 32), 10),
    "CIFAR-100": ("cifar100", ImageShape(3, 32, 32), 100),
    "Imagenette": ("imagenette", ImageShape(3, 224, 224), 10),
    "ImageNet": ("imagenet", ImageShape(3, 224, 224), 1000),
}
ARCHITECTURES = {
    ("F-MNIST", "CNN-3conv"): "fmnist-cnn",
    ("MNIST", "CNN 2conv+2fc"): "mnist-cnn",
    ("MNIST", ""): "small-cnn",
    ("CIFAR-10", ""): "resnet18-cifar",
    ("CIFAR-10", "VGG-16"): "vgg16-cifar",
    ("Imagenette", "VGG-16"): "torchvision/vgg16",
    ("CIFAR-10", "ResNet-18"): "resnet18-cifar",
    ("CIFAR-10", "ResNet-34"): "resnet34-cifar",
    ("CIFAR-10", "ResNet-50"): "resnet50-cifar",
    ("CIFAR-10-C", "ResNet-50"): "resnet50-cifar",
    ("CIFAR-10", "ResNet-101"): "resnet101-cifar",
    ("CIFAR-10", "PreActResNet18"): "preact-resnet18",
    ("CIFAR-10", "WRN-28-10"): "wrn-28-10",
    ("CIFAR-10", "WRN-32-10"): "wrn-34-10",
    ("CIFAR-10", "WRN-34-10"): "wrn-34-10",
    ("CIFAR-100", "WRN-28-10"): "wrn-28-10",
    ("CIFAR-100", "WRN-32-10"): "wrn-34-10",
    ("ImageNet", "ResNet50"): "torchvision/resnet50",
    ("ImageNet", "ResNet50-SWSL"): "torchvision/resnet50",
}
"""What each printed architecture is run as."""

DEFENSES = {
    "undefended": "natural",
    "natural": "natural",
    "vanilla": "natural",
    "agarwal-adam": "patch-augment",
    "agarwal-rmsprop": "patch-augment",
    "FGSM-AT": "fgsm-at",
    "IFGSM-AT": "ifgsm-at",
    "PGD-AT": "pgd-at",
    "Madry": "pgd-at",
    "Free": "free-at",
    "Fast": "fast-at",
    "YOPO": "yopo",
    "ATTA": "atta",
    "TRADES": "trades",
    "MART": "mart",
    "AFT": "aft",
    "DRA": "dra",
    "ours": "dra",
}
"""The defense by the first word of the printed method."""

SAME_RUN = {"DRA p=1/3": "ours+DRA"}
"""Methods that another table prints under another name, with the same numbers."""

BROUGHT = {"jeddi2020/cifar10-aft-500k", "jeddi2020/imagenet-aft-swsl"}
"""Recipes that fine-tune a checkpoint which no recipe makes."""

NAMES = [name for name in catalog.names() if name.split("/")[0] in PAPERS]


class Row(NamedTuple):
    paper: str
    table: str
    method: str
    dataset: str
    architecture: str
    attack: str
    clean: float | None
    robust: float | None
    time: str | None


def percent(text: str) -> float | None:
    return float(text) if text else None


def printed_rows() -> list[Row]:
    with TABLES.open(newline="") as file:
        return [
            Row(
                row["paper"],
                row["table"],
                SAME_RUN.get(row["method"], row["method"]),
                DATASETS[row["dataset"]][0],
                ARCHITECTURES[row["dataset"], row["architecture"]],
                row["attack"],
                percent(row["clean_percent"]),
                percent(row["robust_percent"]),
                row["time"] or None,
            )
            for row in csv.DictReader(file)
        ]


def architecture_name(name: str) -> str:
    architecture = catalog.load(name).resolve().model.architecture
    return f"{architecture.name}/{architecture.model}" if hasattr(architecture, "model") else architecture.name


def recipe_rows() -> list[Row]:
    rows = []
    for name in NAMES:
        recipe = catalog.load(name)
        what = (recipe.resolve().data.dataset, architecture_name(name))
        rows += [
            Row(recipe.paper, row.table, recipe.method, *what, row.attack, row.clean, row.robust, row.time)
            for row in recipe.published
        ]
    return rows


def test_every_printed_row_is_in_exactly_one_recipe_and_no_other_row_is():
    printed, ours = Counter(printed_rows()), Counter(recipe_rows())
    assert len(printed_rows()) == 162
    assert not printed - ours, "printed, but in no recipe"
    assert not ours - printed, "in a recipe, but not printed or already in another"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_whole_job_under_its_papers_protocol(name):
    recipe = catalog.load(name)
    spec = recipe.resolve()
    assert name == f"{recipe.paper}/{name.split('/')[1]}"
    assert spec.evaluation.suite == PAPERS[recipe.paper]
    assert spec.evaluation.samples == 10_000
    assert spec.model.num_classes == {key: classes for key, _, classes in DATASETS.values()}[spec.data.dataset]
    assert (spec.data.crop, spec.data.resize) == ((224, 256) if "imagenet" in spec.data.dataset else (None, None))


@pytest.mark.parametrize("name", NAMES)
def test_the_suite_attacks_as_the_rows_say(name):
    recipe = catalog.load(name)
    spec = recipe.resolve()
    image = {key: image for key, image, _ in DATASETS.values()}[spec.data.dataset]
    radii = [entry.threat.eps for entry in SUITES[spec.evaluation.suite](spec.threat, image).entries]
    for row in recipe.published:
        printed = re.search(r"eps=(\S+)", row.attack)
        if printed:
            numerator, _, denominator = printed[1].partition("/")
            eps = float(numerator) / float(denominator or 1)
            assert any(math.isclose(eps, radius) for radius in radii), row
        else:
            assert row.attack.replace("_", "-") in HOU
            assert spec.evaluation.corruptions


@pytest.mark.parametrize("name", NAMES)
def test_the_defense_is_what_the_method_says(name):
    recipe = catalog.load(name)
    spec, method = recipe.resolve(), recipe.method
    defense, training = spec.defense, spec.training
    assert defense.name == DEFENSES[re.split(r"[ +]", method)[0]]
    if "1/l=" in method:
        assert defense.beta == float(method.split("1/l=")[1])
    if method.startswith("AFT eps"):
        assert spec.threat.eps == int(method.removeprefix("AFT eps")) / 255
    if method.startswith("DRA p="):
        assert defense.attack.p == float(Fraction(method.removeprefix("DRA p=")))
    if method.startswith("agarwal-"):
        assert training.optimizer.name == method.removeprefix("agarwal-")
    if method.endswith("+DRA"):
        assert defense.attack.name == "dra"
    if method.endswith("+PGD"):
        assert defense.attack.name in ("pgd", "kl-pgd")
        assert spec.threat.eps == 2.55 / 255


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("hou2022/")])
def test_tables_v_and_vi_fix_the_strength(name):
    recipe = catalog.load(name)
    spec = recipe.resolve()
    if {row.table for row in recipe.published} & {"V", "VI"}:
        assert spec.training.eps_schedule.name == "constant"
        if spec.defense.attack.name == "dra":
            assert spec.defense.attack.mean_change == 1 / 255


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_starts_from_the_natural_network_of_the_same_kind(name):
    recipe = catalog.load(name)
    spec = recipe.resolve()
    fine_tunes = spec.model.weights == "uploaded"
    assert fine_tunes == (recipe.start is not None or name in BROUGHT)
    assert fine_tunes == (spec.defense.name in ("patch-augment", "aft", "dra"))
    if recipe.start is None:
        return
    start = catalog.load(recipe.start).resolve()
    assert start.defense.name == "natural"
    assert start.model.weights == "random"
    assert start.data == spec.data
    assert start.model.model_copy(update={"weights": "uploaded"}) == spec.model


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_reproduced_as_printed_is_said(name):
    recipe = catalog.load(name)
    notes = " ".join(recipe.notes)
    if recipe.resolve().data.dataset == "imagenet":
        assert "ImageNet has to be brought" in notes
    if name in BROUGHT:
        assert "checkpoint" in notes
    tables = {row.table for row in recipe.published}
    if recipe.paper == "hou2022" and "I" in tables:
        assert "Table I names no architecture" in notes
    if architecture_name(name) == "wrn-34-10" and recipe.method in ("natural", "PGD-AT", "Free"):
        assert "WRN-32-10" in notes


def test_training_from_scratch_crafts_in_the_mode_of_its_reference():
    for name in NAMES:
        spec = catalog.load(name).resolve()
        expected = "train" if spec.defense.name in ("pgd-at", "fgsm-at", "ifgsm-at", "fast-at") else "eval"
        assert getattr(spec.defense, "craft_in", expected) == expected, name
