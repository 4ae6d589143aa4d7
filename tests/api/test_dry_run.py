"""POST /jobs?dry_run=true: what a job would be and take, and nothing is made of it."""

from __future__ import annotations

import copy
import json

import pytest

from tests.api.conftest import SPEC
from tests.api.test_errors import error


def ask(service, spec, **files):
    if not files:
        return service.client.post("/jobs", params={"dry_run": True}, json=spec)
    form = {name: (path.name, path.read_bytes()) for name, path in files.items()}
    return service.client.post("/jobs", params={"dry_run": True}, data={"spec": json.dumps(spec)}, files=form)


def changed(**changes):
    spec = copy.deepcopy(SPEC)
    for place, value in changes.items():
        *path, last = place.split("__")
        part = spec
        for each in path:
            part = part[each]
        part[last] = value
    return spec


def everything(service):
    return [service.client.get(f"/{kind}").json()["items"] for kind in ("jobs", "uploads")]


def test_a_job_like_one_that_ran_takes_what_that_took(service, done, data):
    before = everything(service)
    answer = ask(service, SPEC, data=data)
    assert answer.status_code == 200, answer.text
    assert everything(service) == before, "nothing was made, and the file is gone"
    report = service.client.get(f"/jobs/{done}/report").json()
    told = answer.json()
    assert told["spec"] == report["spec"]
    phases = report["cost"]["phases"]
    seconds = sum(phases[name]["seconds"] for name in ("baseline", "training", "validation", "evaluating"))
    assert told["estimate"] == {
        "passes_per_image": 6,
        "train_images": report["training"]["train_images"],
        "seconds": pytest.approx(seconds, rel=0.01),  # training counts whole batches
        "peak_memory_bytes": report["cost"]["peak_memory_bytes"],
        "from_job": done,
    }


def test_it_grows_with_passes_and_images(service, done, data):
    phases = service.client.get(f"/jobs/{done}/report").json()["cost"]["phases"]
    usual = ask(service, SPEC, data=data).json()["estimate"]
    longer = ask(service, changed(training__epochs=6), data=data).json()["estimate"]
    assert longer["passes_per_image"] == 3 * usual["passes_per_image"]
    grown = 2 * (phases["training"]["seconds"] + phases["validation"]["seconds"])
    assert longer["seconds"] - usual["seconds"] == pytest.approx(grown, rel=0.01)
    fewer = ask(service, changed(evaluation__samples=30), data=data).json()["estimate"]
    spared = (phases["baseline"]["seconds"] + phases["evaluating"]["seconds"]) / 2
    assert usual["seconds"] - fewer["seconds"] == pytest.approx(spared, rel=0.01)


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, {"peak_memory_bytes", "from_job"}),
        ({"model": {"architecture": "small-cnn"}}, set()),
        ({"devices": 2}, set()),
    ],
    ids=["no data yet", "another network", "other devices"],
)
def test_what_no_job_tells_is_null(service, changes, known):
    told = ask(service, {**SPEC, **changes}).json()["estimate"]
    assert {name for name, value in told.items() if value is not None} == {"passes_per_image", *known}


@pytest.mark.usefixtures("done")
def test_another_suite_or_a_search_cannot_be_told(service, data):
    assert ask(service, changed(evaluation__suite="standard"), data=data).json()["estimate"]["seconds"] is None
    goal = {"robust": 0.4, "max_clean_drop": 0.1, "budget_minutes": 5}
    spec = {**SPEC, "defense": {"name": "auto", "goal": goal}, "training": None}
    assert ask(service, spec, data=data).json()["estimate"]["seconds"] is None


def test_a_job_that_only_evaluates(service, done, data):
    spec = {**SPEC, "defense": "none", "training": None}
    told = ask(service, spec, data=data).json()["estimate"]
    seconds = service.client.get(f"/jobs/{done}/report").json()["cost"]["phases"]["baseline"]["seconds"]
    assert (told["passes_per_image"], told["train_images"]) == (None, None)
    assert told["seconds"] == pytest.approx(seconds) or told["from_job"] != done


def test_what_a_job_would_be_refused_for(service):
    assert error(ask(service, changed(defense={"name": "magic"})))["code"] == "invalid_spec"
    unknown = {**SPEC, "data": {"upload": "up_00000000000000000000"}}
    assert error(ask(service, unknown), 404)["code"] == "upload_not_found"
