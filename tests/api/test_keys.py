"""Who may do what, on a real service with keys."""

from __future__ import annotations

import secrets
import threading
import time

import httpx
import pytest

from jobs.database import open_database
from jobs.keys import KeyRepository
from jobs.scopes import SCOPES, Scope
from temperd.schema import upgrade
from tests.api.test_errors import error
from tests.service import Service


def test_strangers_see_nothing_but_the_door(stranger, ours):
    for path in ("/jobs", f"/jobs/{ours.done}", "/defenses", "/metrics", "/jobs/job_x"):
        refused = stranger.get(path)
        assert error(refused, 401)["code"] == "not_authenticated"
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert error(stranger.post("/jobs", json={}), 401)["code"] == "not_authenticated"
    for path in ("/healthz", "/docs", "/docs/start.js", "/openapi.json"):
        assert stranger.get(path).status_code == 200
    assert all(value.startswith("ok") for value in stranger.get("/readyz").json()["checks"].values())


@pytest.mark.parametrize("value", ["Bearer tmp_x", "Bearer", "Basic dXNlcjpwYXNz", "tmp_x", "Bearer " + "x" * 5000])
def test_what_is_no_key_opens_nothing(stranger, value):
    refused = stranger.get("/jobs", headers={"Authorization": value})
    assert error(refused, 401)["code"] == "invalid_key"
    assert "RateLimit" not in refused.headers


def test_a_key_does_what_its_scopes_allow(keys, with_key, ours):
    reader = with_key(keys.create("ours", "reader", {Scope.READ})[1])
    assert reader.get(f"/jobs/{ours.done}/report").status_code == 200
    for path in (f"/jobs/{ours.done}/cancel", "/jobs"):
        assert error(reader.post(path), 403)["code"] == "missing_scope"
    assert error(reader.delete(f"/jobs/{ours.done}"), 403)["hint"].endswith("--scopes jobs:write")
    assert error(reader.get("/metrics"), 403)["code"] == "missing_scope"
    writer = with_key(keys.create("ours", "writer", {Scope.WRITE})[1])
    assert error(writer.get("/jobs"), 403)["code"] == "missing_scope"
    assert error(writer.post(f"/jobs/{ours.done}/cancel"), 409)["code"] == "wrong_state"
    admin = with_key(keys.create("ours", "admin", {Scope.ADMIN})[1])
    assert admin.get("/metrics").status_code == 200
    assert error(admin.get("/jobs"), 403)["code"] == "missing_scope"


def test_a_revoked_key_opens_nothing_from_then_on(keys, with_key):
    key_id, token = keys.create("ours", "short", SCOPES)
    client = with_key(token)
    assert client.get("/jobs").status_code == 200
    keys.revoke(key_id)
    assert error(client.get("/jobs"), 401)["code"] == "invalid_key"


def test_the_last_use_is_kept(keys, with_key):
    key_id, token = keys.create("ours", "used", SCOPES)
    with_key(token).get("/jobs")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if [key for key, _ in keys.every() if key.id == key_id and key.last_used_at]:
            return
        time.sleep(0.1)
    raise AssertionError("it was never written")


def test_streams_end_when_the_key_is_revoked(keys, with_key, ours):
    key_id, token = keys.create("ours", "watcher", {Scope.READ})
    client, begun, ended = with_key(token), threading.Barrier(3, timeout=30), []

    def watch(path, headers):
        with client.stream("GET", path, headers=headers) as stream:
            chunks = stream.iter_raw()
            next(chunks)
            begun.wait()
            for _ in chunks:
                pass
        ended.append(path)

    streams = [
        threading.Thread(target=watch, args=(f"/jobs/{ours.paused}/events", {"Accept": "text/event-stream"})),
        threading.Thread(target=watch, args=(f"/jobs/{ours.paused}/logs?follow=true", {})),
    ]
    for stream in streams:
        stream.start()
    begun.wait()
    keys.revoke(key_id)
    for stream in streams:
        stream.join(60)
    assert len(ended) == 2


def test_a_tenant_has_a_rate_whatever_key_it_uses(keys, with_key):
    name = f"busy-{secrets.token_hex(4)}"
    tokens = [keys.create(name, "k", SCOPES)[1] for _ in range(2)]
    keys.set_limits(name, {"requests_per_minute": 5})
    answers = [with_key(tokens[number % 2]).get("/jobs") for number in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[0].headers["RateLimit-Policy"] == '"tenant";q=5;w=60'
    assert [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers[:3]] == [
        '"tenant";r=4', '"tenant";r=3', '"tenant";r=2',
    ]  # fmt: skip
    assert error(answers[-1], 429)["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
    assert answers[-1].headers["RateLimit"].startswith('"tenant";r=0')
    assert with_key(tokens[0]).get("/nothing").headers["RateLimit"].startswith('"tenant";r=0')


def test_quotas_are_told_with_a_way_out(keys, with_key, example, data):
    name = f"small-{secrets.token_hex(4)}"
    client = with_key(keys.create(name, "k", SCOPES)[1])
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes(), "data": data.read_bytes()}
    form = {"architecture": "fmnist-cnn", "defense": "aft"}

    def refused(status, **limits):
        keys.set_limits(name, limits)
        return error(client.post("/jobs", data=form, files=files), status)

    assert refused(413, max_upload_bytes=1000)["code"] == "upload_too_large"
    assert refused(403, max_upload_bytes=None, max_bytes=1000)["code"] == "storage_quota_exceeded"
    body = refused(429, max_bytes=None, max_queued=0)
    assert body["code"] == "too_many_queued_jobs"
    assert body["hint"]
    assert client.get("/jobs").json()["items"] == []


def test_a_body_without_a_length_is_no_larger_than_may(keys, with_key):
    name = f"small-{secrets.token_hex(4)}"
    client = with_key(keys.create(name, "k", SCOPES)[1])
    keys.set_limits(name, {"max_upload_bytes": 1000})
    headers = {"Content-Type": "application/json"}
    answer = client.post("/jobs", content=(b" " * 100 for _ in range(50)), headers=headers)
    assert error(answer, 413)["code"] == "upload_too_large"


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(tmp_path):
    url = f"sqlite:///{tmp_path / 'temper.db'}"
    upgrade(url)
    engine = open_database(url)
    keys = KeyRepository(engine)
    _, known = keys.create("ours", "known", SCOPES)
    _, new = keys.create("ours", "new", SCOPES)
    engine.dispose()
    with Service(tmp_path, key=known, wrong_keys_per_minute=10) as service:

        def ask(token, method="GET", path="/jobs", **more):
            url, headers = service.client.base_url.join(path), {"Authorization": f"Bearer {token}"}
            return httpx.request(method, url, headers=headers, timeout=60, **more)

        assert ask(known).status_code == 200
        codes = [ask(f"tmp_{secrets.token_urlsafe(32)}").status_code for _ in range(40)]
        assert codes[0] == 401
        assert codes[-1] == 429
        answer = ask(new)
        assert error(answer, 429)["code"] == "too_many_failures", "a right guess looks like a wrong one"
        assert int(answer.headers["Retry-After"]) >= 1
        assert error(ask("x", "POST", "/login", json={"key": new}), 429)["code"] == "too_many_failures"
        assert ask(known).status_code == 200, "who was here before goes on"
        time.sleep(int(answer.headers["Retry-After"]))
        assert ask(new).status_code == 200
