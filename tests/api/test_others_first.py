"""What one tenant does slowly, often or at great length leaves the others theirs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from contextlib import ExitStack

import httpx
import pytest

import api.door
from api.credentials import _LOGINS_PER_MINUTE, _network
from api.door import Door
from jobs.database import open_database
from jobs.keys import KeyRepository, Known
from jobs.limits import Limits
from jobs.scopes import SCOPES
from temperd.schema import upgrade
from tests.api.conftest import SPEC
from tests.api.test_errors import error
from tests.api.test_uploads import BYTES, TUS, begin, send, stored
from tests.faults.floor import until
from tests.service import Service

MOST = 4


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A service with few places for uploads, and a client of each of its two tenants, of whom the first has 2 MiB."""
    folder = tmp_path_factory.mktemp("two")
    url = f"sqlite:///{folder / 'temper.db'}"
    upgrade(url)
    engine = open_database(url)
    keys = KeyRepository(engine)
    tokens = [keys.create(name, "tests", SCOPES)[1] for name in ("first", "second")]
    with ExitStack() as stack:
        service = stack.enter_context(Service(folder, max_transfers=MOST, requests_per_minute=10**6))
        clients = [
            stack.enter_context(
                httpx.Client(base_url=service.client.base_url, timeout=60, headers={"Authorization": f"Bearer {token}"})
            )
            for token in tokens
        ]
        yield service, keys, *clients
    engine.dispose()


def slow(client, url):
    """A PATCH of which one byte has come."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port), 10)
    headers = {**BYTES, "Upload-Offset": "0", "Content-Length": "1000000", "Host": "temper"}
    headers["Authorization"] = client.headers["Authorization"]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"PATCH {url} HTTP/1.1\r\n{head}\r\nx".encode())
    connection.settimeout(0.5)
    with pytest.raises(TimeoutError):  # it has its place, and no answer
        connection.recv(1)
    return connection


def test_a_tenant_has_half_of_the_places_for_bodies(two):
    _, _, first, second = two
    theirs, mine = begin(first, 10), begin(second, 10)
    connections = [slow(first, begin(first, 1_000_000)) for _ in range(MOST // 2)]
    refused = error(send(first, theirs, b"0123456789", 0), 429)
    assert refused["code"] == "too_many_at_once"
    form = first.post("/jobs", files={"data": ("d", b"x")}, data={"spec": "{}"})
    assert error(form, 429)["code"] == "too_many_at_once"
    assert send(second, mine, b"0123456789", 0).status_code == 204
    connections.pop().close()
    until(lambda: send(first, theirs, b"0123456789", 0).status_code == 204, what="a place is free")
    connections.pop().close()


def test_what_waits_for_its_checksum_takes_no_more_room_than_there_is(two):
    service, keys, first, _ = two
    for item in first.get("/uploads").json()["items"]:
        first.delete(f"/uploads/{item['id']}")
    keys.set_limits("first", {"max_bytes": 2 << 20})
    before = stored(service)
    content = bytes(9 << 20)
    url = begin(first, len(content))
    checksum = "sha256 " + base64.b64encode(hashlib.sha256(content).digest()).decode()

    def chunks():
        yield content

    for body in (content, chunks()):  # with a length, and without
        refused = send(first, url, body, 0, **{"Upload-Checksum": checksum})
        assert error(refused, 403)["code"] == "storage_quota_exceeded"
        assert stored(service) == before
    small = b"fits"
    checksum = "sha256 " + base64.b64encode(hashlib.sha256(small).digest()).decode()
    assert send(first, begin(first, 4), small, 0, **{"Upload-Checksum": checksum}).status_code == 204
    keys.set_limits("first", {"max_bytes": None})


def test_no_more_requests_of_a_tenant_at_one_time_than_leave_others_theirs(monkeypatch):
    monkeypatch.setattr(api.door, "_MOST_OPEN", 3)
    statuses = []

    class Anybody:
        async def identify(self, request):
            name = request.headers["authorization"]
            return Known(name, name, SCOPES, Limits())

        def note(self, _):
            pass

    async def ask(door, tenant):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append((tenant, message["status"]))

        scope = {"type": "http", "method": "GET", "path": "/jobs", "headers": [(b"authorization", tenant.encode())]}
        await door(scope, receive, send)

    async def course():
        ended = asyncio.Event()

        async def stream(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await ended.wait()

        door = Door(stream, Anybody(), Limits(requests_per_minute=1000))
        streams = [asyncio.create_task(ask(door, "a")) for _ in range(3)]
        await asyncio.sleep(0)
        await ask(door, "a")
        streams.append(asyncio.create_task(ask(door, "b")))
        await asyncio.sleep(0)
        assert statuses == [("a", 200)] * 3 + [("a", 429), ("b", 200)]
        ended.set()
        await asyncio.gather(*streams)
        await ask(door, "a")
        assert statuses[-1] == ("a", 200)

    asyncio.run(course())


def test_logins_of_a_key_are_counted(two):
    _, keys, _, _ = two
    key_id, token = keys.create("first", "browser", SCOPES)
    with httpx.Client(base_url=two[0].client.base_url) as stranger:
        statuses = [stranger.post("/login", json={"key": token}).status_code for _ in range(_LOGINS_PER_MINUTE + 1)]
        assert statuses == [200] * _LOGINS_PER_MINUTE + [429]
    keys.revoke(key_id)


@pytest.mark.parametrize(
    ("addresses", "one"),
    [
        (["::ffff:203.0.113.5", "203.0.113.5"], True),
        (["::ffff:203.0.113.5", "::ffff:198.51.100.7"], False),
        (["2001:db8::1", "2001:db8::2"], True),
        (["2001:db8::1", "2001:db8:1::1"], False),
        (["203.0.113.5", "203.0.113.6"], False),
    ],
)
def test_wrong_keys_are_counted_by_the_network_that_one_host_has(addresses, one):
    assert (len({_network(address) for address in addresses}) == 1) == one


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {**SPEC["model"], "mean": [0] * 17, "std": [1] * 17}}, "model.mean"),
        ({"data": {"dataset": "x" * 201}}, "data.dataset"),
        ({"training": {"schedule": {"name": "multi-step", "milestones": [0.5] * 101}}}, "training.schedule"),
        ({"training": {"clip_norm": float("inf")}}, "training.clip_norm"),
        ({"training": {"schedule": {"name": "step", "every": float("inf")}}}, "training.schedule"),
    ],
    ids=["channels", "dataset", "milestones", "clip_norm", "every"],
)
def test_a_spec_has_an_end(service, changes, field):
    body = json.dumps({**SPEC, **changes}).encode()
    answer = service.client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert field in str(error(answer, 422)["errors"])


def test_a_spec_of_many_bytes_is_not_read(service):
    answer = service.client.post("/jobs", json={**SPEC, "tags": {"a": "b" * 70_000}})
    assert answer.status_code == 413


@pytest.mark.parametrize("made", [[1.0, "\ud800"], [1.0, "job_\0"], [1.0, 7], [1.0, "job_1' OR 1=1"], [1e400, "x"]])
def test_a_made_up_cursor_is_none(service, made):
    cursor = base64.urlsafe_b64encode(json.dumps(made).encode()).decode()
    for path in ("/jobs", "/uploads"):
        assert error(service.client.get(path, params={"cursor": cursor}), 422)["errors"][0]["field"] == "cursor"


def test_names_are_kept_without_what_steers_a_terminal(two):
    _, _, first, _ = two
    names = {"filename": "a\x1b[2K\r\nb\u202e.pt", "purpose": "x\0y"}
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in names.items())
    url = begin(first, 4, **{"Upload-Metadata": metadata})
    told = first.get(url).json()
    assert (told["filename"], told["purpose"]) == ("a[2K  b.pt", "xy")
    assert first.head(url, headers=TUS).headers["upload-metadata"] == metadata
