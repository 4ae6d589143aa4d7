"""Recipes over REST: listed, submitted by name, overridden; and training from scratch."""

from __future__ import annotations

import json

import pytest

from recipes.catalog import names

SMALL = {
    "training": {"epochs": 1, "samples": 300, "held_out": 30, "batch_size": 50},
    "evaluation": {"samples": 40, "diagnose": False},
}


def refused(service, body, **files):
    sent = {"files": files, "data": {"spec": json.dumps(body)}} if files else {"json": body}
    answer = service.client.post("/jobs", **sent)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    return error["field"], error["message"]


def test_all_recipes_are_listed_with_their_published_numbers(service):
    items = service.client.get("/recipes").json()["items"]
    assert [item["name"] for item in items] == names()
    aft = next(item for item in items if item["name"] == "jeddi2020/cifar10-aft")
    assert aft["published"] == [
        {"table": "1", "attack": "PGD-20 eps=8/255", "clean": 88.15, "robust": 51.7, "time": "486min"}
    ]
    assert aft["spec"]["defense"] == "aft"


def test_a_recipe_runs_with_overrides_and_own_data(service, example, data):
    """The recipe's dataset gives way to the file, its epochs to the body's."""
    job = service.submit(example / "checkpoint.pt", data, {"recipe": "fashion-mnist-cpu/pgd-at", **SMALL})
    ended = service.wait(job)
    assert ended["state"] == "succeeded", ended
    assert ended["name"] == "fashion-mnist-cpu/pgd-at"
    spec = ended["spec"]
    assert spec["defense"]["attack"]["steps"] == 5
    assert spec["training"]["schedule"]["name"] == "multi-step"
    assert spec["training"]["epochs"] == 1
    assert spec["data"]["dataset"] is None


@pytest.mark.long
def test_a_job_from_scratch_needs_no_checkpoint(service, data):
    body = {"recipe": "fashion-mnist-cpu/clean", **SMALL, "training": {**SMALL["training"], "epochs": 6}}
    with data.open("rb") as file:
        answer = service.client.post("/jobs", data={"spec": json.dumps(body)}, files={"data": file})
    job = answer.raise_for_status().json()["id"]
    ended = service.wait(job)
    assert ended["state"] == "succeeded", ended
    assert ended["checkpoint"] is None
    report = service.client.get(f"/jobs/{job}/report").json()
    assert report["before"]["clean"]["accuracy"] < 0.4
    assert report["after"]["clean"]["accuracy"] > report["before"]["clean"]["accuracy"] + 0.2
    assert "Trained from scratch: the model before hardening has random weights." in report["notes"]
    assert service.client.get(f"/jobs/{job}/checkpoint").status_code == 200
    assert service.client.delete(f"/jobs/{job}").status_code in (200, 204)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"recipe": "jeddi2020/cifar10-atf"}, "recipe", "nearest: jeddi2020/cifar10-aft"),
        ({"recipe": 3}, "recipe", "a string"),
        ({"recipe": "jeddi2020/cifar10-aft"}, "checkpoint", "run that first"),
        ({"recipe": "jeddi2020/cifar10-aft", "trainng": {}}, "trainng", "there is no such field"),
        (
            {"recipe": "jeddi2020/cifar10-aft", "defense": {"name": "aft", "stps": 3}},
            "defense.stps",
            "there is no such field",
        ),
    ],
)
def test_what_is_wrong_is_named(service, body, field, words):
    found, message = refused(service, body)
    assert field in found
    assert words in message


def test_random_weights_and_a_checkpoint_do_not_go_together(service, example):
    body = {"recipe": "fashion-mnist-cpu/clean"}
    with (example / "checkpoint.pt").open("rb") as file:
        field, message = refused(service, body, checkpoint=file)
    assert (field, message) == ("model.weights", "either a checkpoint or random weights, not both")
