"""Bad input: a clear answer that names the field or file and the way out; nothing is stored for it."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from api.errors import field_path
from tests.api.conftest import SPEC

FIELDS = {"architecture": "fmnist-cnn", "defense": "aft"}


def error(answer, status=422):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert {"type", "title", "code", "detail"} <= body.keys()
    return body


@pytest.mark.parametrize(
    ("spec", "fields", "field", "words"),
    [
        ({}, {"defense": "aftt"}, "defense", "'aftt' is not known; allowed: "),
        ({}, {"architecture": "resnet"}, "model.architecture", "resnet18-cifar"),
        ({}, {"eps": "big"}, "threat.eps", "valid number"),
        ({}, {"norm": "l7"}, "threat.norm", "'linf', 'l2' or 'l1'"),
        ({}, {"epochs": "0"}, "training.epochs", "greater than or equal to 1"),
        (
            {"defense": {"name": "dra", "attack": {"p": 2}}},
            {"defense": None},
            "defense.attack.p",
            "less than or equal to 1",
        ),
        ({"trainig": {}}, {}, "trainig", "there is no such field"),
        ({"training": {"optimizer": {"name": "adam", "lr": -1}}}, {}, "training.optimizer.lr", "greater than 0"),
        ({"training": {"schedule": "warm"}}, {}, "training.schedule", "slow-start-fast-decay"),
        ({"model": 3}, {"architecture": None}, "model", "dictionary"),
        ({}, {"architecture": None}, "model", "required"),
        ({"training": {"samples": 100}}, {"architecture": None}, "model", "required"),
        ({"training": {"samples": 100}}, {"architecture": "resnet"}, "model.architecture", "resnet18-cifar"),
        ({"training": {"samples": 100}}, {"defense": "aftt"}, "defense", "'aftt' is not known; allowed: "),
        ({"training": {"samples": 100}}, {"defense": None}, "defense", "required"),
        ({}, {"colour": "red"}, "colour", "no such form field; allowed: architecture, defense"),
    ],
)
def test_bad_specs_name_the_field(spec, fields, field, words, service, example, data):
    before = service.client.get("/jobs").json()
    sent = {key: value for key, value in {**FIELDS, **fields}.items() if value is not None}
    body = error(service.post(example / "checkpoint.pt", data, spec, **sent))
    assert body["code"] == "invalid_spec"
    assert [row["field"] for row in body["errors"]] == [field]
    assert words in body["errors"][0]["message"]
    assert service.client.get("/jobs").json() == before


def test_several_mistakes_are_told_at_once(service, example, data):
    spec = {"threat": {"eps": -1}, "training": {"epochs": 0}, "evaluation": {"samples": 0}}
    body = error(service.post(example / "checkpoint.pt", data, spec, **FIELDS))
    assert {row["field"] for row in body["errors"]} == {"threat.eps", "training.epochs", "evaluation.samples"}


def test_missing_files_and_bad_bodies(service, example):
    post = service.client.post
    weights = {"checkpoint": (example / "checkpoint.pt").read_bytes()}
    assert error(post("/jobs", data=FIELDS, files=weights))["errors"][0]["field"] == "data"
    assert error(post("/jobs", data=FIELDS, files={"data": b"x"}))["errors"][0]["field"] == "checkpoint"
    text = {**FIELDS, "checkpoint": "model.pt"}
    assert "-F checkpoint=@FILE" in error(post("/jobs", data=text, files={"data": b"x"}))["errors"][0]["message"]
    assert "not JSON" in error(post("/jobs", content="{", headers={"Content-Type": "application/json"}))["detail"]
    assert "not a JSON object" in error(post("/jobs", json=[1]))["detail"]
    deep = "[" * 60_000
    assert "JSON" in error(post("/jobs", content=deep, headers={"Content-Type": "application/json"}))["detail"]
    assert error(post("/jobs", json=SPEC))["errors"][0]["field"] == "checkpoint"
    unknown = {**SPEC, "checkpoint": {"upload": "up_x"}, "data": {"upload": "up_y"}}
    assert error(post("/jobs", json=unknown), 404)["code"] == "upload_not_found"
    assert error(post("/jobs", json={**SPEC, "checkpoint": {"url": "http://x"}}))["errors"][0]["field"] == "checkpoint"
    form = {"content": "a=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    assert error(post("/jobs", **form), 415)["code"] == "unsupported_media_type"
    assert error(post("/jobs", json={**SPEC, "name": "x" * 2_000_000}), 413)["code"]
    surrogate = json.dumps({**SPEC, "checkpoint": {"upload": "up_x"}, "data": {"upload": "\ud800"}})
    assert (
        error(post("/jobs", content=surrogate, headers={"Content-Type": "application/json"}))["code"] == "invalid_spec"
    )
    for norm in ([], {}, 3, None):
        body = {**SPEC, "threat": {"norm": norm, "eps": 0.1}}
        assert error(post("/jobs", json=body))["errors"][0]["field"] == "threat.norm"
    malformed = post("/jobs", content=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert malformed.status_code in (400, 422)


def test_unknown_ids_and_paths(service):
    for path in ("/jobs/job_x", "/jobs/job_x/report", "/jobs/job_x/events", "/jobs/job_x/checkpoint"):
        assert error(service.client.get(path), 404)["code"] == "job_not_found"
    assert error(service.client.post("/jobs/job_x/cancel"), 404)["code"] == "job_not_found"
    assert error(service.client.delete("/jobs/job_x"), 404)["code"] == "job_not_found"
    assert error(service.client.get("/nothing"), 404)["detail"] == "there is nothing at /nothing"
    assert error(service.client.put("/jobs"), 405)["code"] == "method_not_allowed"
    assert error(service.client.get("/jobs", params={"limit": 0}))["errors"][0]["field"] == "limit"
    assert error(service.client.get("/jobs", params={"cursor": "x"}))["errors"][0]["field"] == "cursor"
    assert error(service.client.get("/jobs", params={"state": "x"}))["errors"][0]["field"] == "state"
    deep = base64.urlsafe_b64encode(b"[" * 20_000).decode()
    huge = base64.urlsafe_b64encode(b'[1%s, "job_x"]' % (b"0" * 400)).decode()
    for cursor in (deep, huge):
        assert error(service.client.get("/jobs", params={"cursor": cursor}))["errors"][0]["field"] == "cursor"


def test_odd_event_ids(service, done):
    url = f"/jobs/{done}/events"
    assert error(service.client.get(url, params={"after": 10**30}))["errors"][0]["field"] == "after"
    for odd in ("", "x", "9" * 40):
        answer = service.client.get(url, headers={"Accept": "text/event-stream", "Last-Event-ID": odd})
        assert answer.status_code == 200
        assert "succeeded" in answer.text


def test_a_refused_job_leaves_no_file(service, example, data):
    store = service.data_dir / "store"
    before = sorted(store.rglob("*"))
    spec = {**SPEC, "data": {"dataset": "cifar10"}}
    assert error(service.post(example / "checkpoint.pt", data, spec))["errors"][0]["field"] == "data.dataset"
    missing = {**SPEC, "data": {"upload": "up_missing"}}
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes()}
    answer = service.client.post("/jobs", data={"spec": json.dumps(missing)}, files=files)
    assert error(answer, 404)["code"] == "upload_not_found"
    assert sorted(store.rglob("*")) == before


def test_a_file_name_that_is_no_text_does_not_break_the_lists(service, example, tmp_path):
    """A Latin-1 name in a tar once made every list that held the job a 500."""
    path = tmp_path / "latin.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("train/caf\xe9/1.png"))
    failure = failed(service, example / "checkpoint.pt", path)
    assert failure["code"] == "archive_unsafe"
    assert "is not valid UTF-8" in failure["detail"]
    assert service.client.get("/jobs").status_code == 200


def test_a_damaged_archive_is_refused_at_once(service, example, tmp_path):
    path = tmp_path / "cut.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(example / "data.npz", "train/a/1.png")
    path.write_bytes(path.read_bytes()[:100_000])
    job = service.submit(example / "checkpoint.pt", path, SPEC)
    ended = service.wait(job)
    assert (ended["failure"]["code"], ended["attempt"]) == ("data_format", 1)
    assert "cut.tar.gz cannot be read" in ended["failure"]["detail"]


def failed(service, checkpoint: Path, data: Path, spec=SPEC):
    job = service.submit(checkpoint, data, spec)
    ended = service.wait(job)
    assert ended["state"] == "failed"
    assert ended["failure"]["blame"] == "user"
    report = error(service.client.get(f"/jobs/{job}/report"), 409)
    assert (report["code"], report["failure"]) == ("job_failed", ended["failure"])
    return ended["failure"]


def test_a_checkpoint_that_does_not_fit(service, example, data):
    failure = failed(service, example / "checkpoint.pt", data, {**SPEC, "model": {"architecture": "small-cnn"}})
    assert failure["code"] == "checkpoint_mismatch"
    assert "missing (" in failure["detail"]
    assert "fmnist-cnn" in failure["hint"]


def test_a_pickled_module(service, data, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    failure = failed(service, tmp_path / "module.pt", data)
    assert failure["code"] == "checkpoint_pickled_module"
    assert "torch.save(model.state_dict()" in failure["hint"]


def test_bad_data(service, example, arrays, tmp_path):
    x = arrays["x_train"][:50].astype(np.float32)
    np.savez(tmp_path / "float.npz", **{**{k: v[:50] for k, v in arrays.items()}, "x_train": x})
    failure = failed(service, example / "checkpoint.pt", tmp_path / "float.npz")
    assert failure["code"] == "pixels_out_of_range"
    assert "x_train of float.npz has floats from 0 to 255" in failure["detail"]


def test_a_baseline_near_chance_keeps_what_was_measured(service, data, tmp_path, network):
    torch.save({key: torch.zeros_like(value) for key, value in network.net.state_dict().items()}, tmp_path / "zero.pt")
    job = service.submit(tmp_path / "zero.pt", data, SPEC)
    failure = service.wait(job)["failure"]
    assert failure["code"] == "baseline_too_low"
    assert "normalisation" in failure["hint"]
    results = [e for e in service.client.get(f"/jobs/{job}/events").json()["items"] if e["type"] == "preview"]
    assert results[0]["data"]["clean"]["total"] == 60


@pytest.mark.parametrize(
    ("location", "data", "expected"),
    [
        (("defense", "aft", "steps"), {"defense": {"name": "aft", "steps": 0}}, "defense.steps"),
        (
            ("model", "architecture", "timm", "model"),
            {"model": {"architecture": {"name": "timm", "model": "x"}}},
            "model.architecture.model",
        ),
        (("training", "optimizer"), {}, "training.optimizer"),
        ((), {}, "spec"),
        (
            ("model", "architecture", "sequential", "layers", 0, "relu", "x"),
            {"model": {"architecture": {"name": "sequential", "layers": [{"kind": "relu", "x": 1}]}}},
            "model.architecture.layers.0.x",
        ),
    ],
)
def test_field_paths_are_as_the_user_wrote_them(location, data, expected):
    assert field_path(location, data) == expected


def test_errors_hold_no_path_and_no_traceback(service, example, data):
    answer = json.dumps(error(service.post(example / "checkpoint.pt", data, {}, architecture="x", defense="y")))
    assert "Traceback" not in answer
    assert str(Path.cwd()) not in answer
