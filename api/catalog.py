"""What can be asked for: defenses, attacks, architectures, schedules, optimizers, datasets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.services import Provided
from core.attacks import ATTACKS
from core.defenses import DEFENSES
from core.models import ARCHITECTURES
from core.optimizers import OPTIMIZERS
from core.schedules import SCHEDULES

router = APIRouter(tags=["catalog"])
DATASETS = {
    "fashion-mnist": "Fashion-MNIST: 28 px grey, 10 classes",
    "mnist": "MNIST: 28 px grey, 10 classes",
    "cifar10": "CIFAR-10: 32 px colour, 10 classes",
}

Items = dict[str, list[dict[str, Any]]]


@router.get("/defenses")
def defenses() -> Items:
    """Ways to fine-tune. Defaults are the paper's for CIFAR; a job shows those for its architecture."""
    return {"items": DEFENSES.catalog()}


@router.get("/attacks")
def attacks() -> Items:
    """Attacks that the suites are made of."""
    return {"items": ATTACKS.catalog()}


@router.get("/architectures")
def architectures() -> Items:
    """Networks by name; `models` lists what "timm/NAME" and "torchvision/NAME" may name."""
    return {"items": [{**row, "models": ARCHITECTURES[row["name"]].models()} for row in ARCHITECTURES.catalog()]}


@router.get("/schedules")
def schedules() -> Items:
    """Learning-rate schedules."""
    return {"items": SCHEDULES.catalog()}


@router.get("/optimizers")
def optimizers() -> Items:
    """Optimizers."""
    return {"items": OPTIMIZERS.catalog()}


@router.get("/datasets")
def datasets(services: Provided) -> Items:
    """Datasets by name; those not `fetched` need `temperd datasets fetch NAME` on the server."""
    there = {path.stem for path in services.settings.datasets_dir.glob("*.npz")}
    names = sorted({*DATASETS, *there})
    return {"items": [{"name": n, "title": DATASETS.get(n, ""), "fetched": n in there} for n in names]}
