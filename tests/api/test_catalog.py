"""The catalog shows what is registered, and its defaults are accepted as they stand."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from core.attacks import ATTACKS, AnyAttack
from core.defenses import DEFENSES, AnyDefense
from core.models import ARCHITECTURES
from core.optimizers import OPTIMIZERS, AnyOptimizer
from core.schedules import SCHEDULES, AnySchedule
from jobs.datasets import DATASETS

CATALOGS = {
    "attacks": (ATTACKS, AnyAttack),
    "defenses": (DEFENSES, AnyDefense),
    "optimizers": (OPTIMIZERS, AnyOptimizer),
    "schedules": (SCHEDULES, AnySchedule),
}


@pytest.mark.parametrize("kind", CATALOGS)
def test_every_entry_is_there_and_its_defaults_are_valid(service, kind):
    registry, union = CATALOGS[kind]
    items = service.client.get(f"/{kind}").json()["items"]
    assert [item["name"] for item in items] == registry.names()
    for item in items:
        assert item["title"]
        entry = TypeAdapter(union).validate_python(item["defaults"])
        assert entry.name == item["name"]
        properties = item["schema"]["properties"]
        assert set(properties) == set(item["defaults"])
        assert all(value.get("description") for key, value in properties.items() if key != "name")


def test_architectures(service):
    items = {item["name"]: item for item in service.client.get("/architectures").json()["items"]}
    assert set(items) == set(ARCHITECTURES.names())
    assert "resnet50" in items["timm"]["models"]
    assert "resnet50" in items["torchvision"]["models"]


def test_datasets_say_whether_they_were_fetched(service):
    folder = service.data_dir / "datasets"
    folder.mkdir(exist_ok=True)
    for name in ("svhn.npz", "imagenette.zip", "of-my-own.zip", "notes.txt"):
        (folder / name).write_bytes(b"")
    try:
        items = service.client.get("/datasets").json()["items"]
    finally:
        for name in ("svhn.npz", "imagenette.zip", "of-my-own.zip", "notes.txt"):
            (folder / name).unlink()
    assert [item["name"] for item in items] == sorted(item["name"] for item in items)
    fetched = {item["name"]: item["fetched"] for item in items}
    assert {name for name in DATASETS if fetched[name]} == {"svhn", "imagenette"}
    assert fetched["of-my-own"]
    assert "notes" not in fetched
    assert {"name": "cifar10", "title": "CIFAR-10: 32 px colour, 10 classes", "fetched": False} in items


def test_the_openapi_document_describes_the_spec(service):
    document = service.client.get("/openapi.json").json()
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    schemas = document["components"]["schemas"]
    assert {"AFT", "DRATraining", "PatchAugment", "NoDefense", "JobSpec"} <= set(schemas)

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for child in value.values():
                yield from references(child)
        elif isinstance(value, list):
            for child in value:
                yield from references(child)

    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)
