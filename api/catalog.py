"""What can be asked for: defenses, attacks, architectures, schedules, optimizers, datasets, recipes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.caller import READ
from api.services import Provided
from core.attacks import ATTACKS
from core.defenses import DEFENSES
from core.eps_schedules import EPS_SCHEDULES
from core.models import ARCHITECTURES
from core.optimizers import OPTIMIZERS
from core.schedules import SCHEDULES
from ingest.datasets import available
from jobs.datasets import DATASETS
from recipes import catalog as recipe_catalog

router = APIRouter(tags=["catalog"])

Items = dict[str, list[dict[str, Any]]]


@router.get("/defenses", dependencies=[READ])
def defenses() -> Items:
    """Ways to fine-tune. Defaults are the paper's for CIFAR; a job shows those for its architecture."""
    return {"items": DEFENSES.catalog()}


@router.get("/attacks", dependencies=[READ])
def attacks() -> Items:
    """Attacks that the suites are made of."""
    return {"items": ATTACKS.catalog()}


@router.get("/architectures", dependencies=[READ])
def architectures() -> Items:
    """Networks by name; `models` lists what "timm/NAME" and "torchvision/NAME" may name."""
    return {"items": [{**row, "models": ARCHITECTURES[row["name"]].models()} for row in ARCHITECTURES.catalog()]}


@router.get("/schedules", dependencies=[READ])
def schedules() -> Items:
    """Learning-rate schedules."""
    return {"items": SCHEDULES.catalog()}


@router.get("/eps-schedules", dependencies=[READ])
def eps_schedules() -> Items:
    """Schedules of the training adversary's strength."""
    return {"items": EPS_SCHEDULES.catalog()}


@router.get("/optimizers", dependencies=[READ])
def optimizers() -> Items:
    """Optimizers."""
    return {"items": OPTIMIZERS.catalog()}


@router.get("/datasets", dependencies=[READ])
def datasets(services: Provided) -> Items:
    """Datasets by name, the operator's too; those not `fetched` need `temperd datasets fetch NAME` on the server."""
    there = available(services.settings.dataset_folders)
    titles = {name: dataset.title for name, dataset in DATASETS.items()}
    names = sorted({*titles, *there})
    return {"items": [{"name": n, "title": titles.get(n, ""), "fetched": n in there} for n in names]}


@router.get("/recipes", dependencies=[READ])
def recipes() -> Items:
    """Whole jobs by name, with what was published about them; POST /jobs takes {"recipe": NAME, ...overrides}."""
    return {"items": [recipe_catalog.load(name).model_dump(mode="json") for name in recipe_catalog.names()]}
