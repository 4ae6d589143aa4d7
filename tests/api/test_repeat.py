"""Idempotency-Key: however often a request is sent, and whatever dies in between, one job."""

from __future__ import annotations

import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.test_errors import error
from tests.service import Service

BODY = {
    "model": {"architecture": "fmnist-cnn", "weights": "random", "num_classes": 10},
    "data": {"dataset": "never-fetched"},
    "defense": "pgd-at",
    "threat": {"norm": "linf", "eps": 0.1},
}


@pytest.fixture
def key():
    return {"Idempotency-Key": secrets.token_hex(8)}


def named(client, name):
    jobs = client.get("/jobs", params={"limit": 200}).json()["items"]
    return [job["id"] for job in jobs if job["name"] == name]


def test_the_answer_is_replayed_word_for_word(keyed, key):
    first = keyed.client.post("/jobs", json={**BODY, "name": "again"}, headers=key)
    assert first.status_code == 202
    assert "Idempotency-Replayed" not in first.headers
    keyed.wait(first.json()["id"])
    quoted = {"Idempotency-Key": f'"{key["Idempotency-Key"]}"'}
    for headers in (key, quoted):
        again = keyed.client.post("/jobs", json={"name": "again", **BODY}, headers=headers)
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotency-Replayed"] == "true"
    assert keyed.client.delete(f"/jobs/{first.json()['id']}").status_code == 200
    assert keyed.client.post("/jobs", json={**BODY, "name": "again"}, headers=key).content == first.content
    assert named(keyed.client, "again") == []


def test_another_body_is_refused(keyed, key, example, data):
    assert keyed.client.post("/jobs", json=BODY, headers=key).status_code == 202
    other = keyed.client.post("/jobs", json={**BODY, "seed": 1}, headers=key)
    assert error(other)["code"] == "idempotency_key_reused"
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes(), "data": data.read_bytes()}
    form = {"architecture": "fmnist-cnn", "defense": "none"}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = keyed.client.post("/jobs", data=form, files=files, headers=key)
    assert first.status_code == 202
    assert keyed.client.post("/jobs", data=form, files=files, headers=key).content == first.content
    changed = {**files, "data": data.read_bytes() + b"x"}
    refused = keyed.client.post("/jobs", data=form, files=changed, headers=key)
    assert error(refused)["code"] == "idempotency_key_reused"
    keyed.client.post(f"/jobs/{first.json()['id']}/cancel")


def test_what_was_refused_is_not_remembered(keyed, key):
    assert error(keyed.client.post("/jobs", json={**BODY, "seed": "x"}, headers=key))["code"] == "invalid_spec"
    assert keyed.client.post("/jobs", json=BODY, headers=key).status_code == 202


@pytest.mark.parametrize("value", ["", "x" * 256, "a b", '"', "\u00e4".encode()])
def test_a_key_that_is_none(keyed, value):
    refused = keyed.client.post("/jobs", json=BODY, headers={"Idempotency-Key": value})
    assert error(refused)["errors"][0]["field"] == "Idempotency-Key"


def test_fifty_at_once_make_one_job(keyed, key, example, data):
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes(), "data": data.read_bytes()}
    form = {"architecture": "fmnist-cnn", "defense": "none", "spec": '{"name": "fifty"}'}

    def send(_):
        while True:
            answer = httpx.post(
                keyed.client.base_url.join("/jobs"), data=form, files=files, timeout=120,
                headers={**key, "Authorization": keyed.client.headers["Authorization"]},
            )  # fmt: skip
            if answer.status_code not in (409, 429, 503):
                return answer
            assert answer.json()["code"] in ("idempotency_in_progress", "too_many_at_once", "busy")
            time.sleep(int(answer.headers["Retry-After"]))

    with ThreadPoolExecutor(50) as pool:
        answers = [*pool.map(send, range(50))]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 49
    (job,) = named(keyed.client, "fifty")
    keyed.client.post(f"/jobs/{job}/cancel")


def test_a_service_that_dies_before_it_answers_has_made_one_job(tmp_path, key):
    marker = tmp_path / "die"
    marker.touch()
    program = [sys.executable, Path(__file__).with_name("dying_server.py"), marker]
    service = Service(tmp_path / "data", command=program).start()
    with pytest.raises(httpx.TransportError):
        service.client.post("/jobs", json={**BODY, "name": "died"}, headers=key)
    service.kill()
    with service:
        (job,) = named(service.client, "died")
        answer = service.client.post("/jobs", json={**BODY, "name": "died"}, headers=key)
        assert (answer.status_code, answer.json()["id"]) == (202, job)
        assert answer.headers["Idempotency-Replayed"] == "true"
        assert named(service.client, "died") == [job]
