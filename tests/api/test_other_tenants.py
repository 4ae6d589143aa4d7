"""Every route with another tenant's id: the same bytes as an unknown id, the request id aside."""

from __future__ import annotations

import itertools
import json
import re
import secrets

import pytest

from jobs.scopes import SCOPES
from tests.api.conftest import SPEC

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WAYS = (
    {},
    {"Range": "bytes=0-9", "Accept": "text/html"},
    {"If-None-Match": "*"},
    {"Accept": "text/event-stream", "Last-Event-ID": "1"},
    {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
)
QUERIES = ("", "?wait=1&follow=true", "?format=pt&after=1&limit=1&tail=1", "?format=x&limit=0")
OF_A_MOMENT = ("x-request-id", "date", "ratelimit")


@pytest.fixture
def theirs(keys, with_key):
    """A client of another tenant, who may do everything there."""
    _, token = keys.create("theirs", "tests", SCOPES)
    keys.set_limits("theirs", {"requests_per_minute": 1_000_000})
    return with_key(token)


def told(answer):
    """All that a client sees of an answer; ids that it sent itself stand for each other."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in OF_A_MOMENT)
    body = re.sub(rb'"request_id":"[^"]*"', b"", answer.content)
    return answer.status_code, headers, body


def paths(service):
    document = service.client.get("/openapi.json").json()
    found = [path for path in document["paths"] if "{" in path]
    assert len(found) >= 9
    return found


def test_every_route_with_an_id(keyed, ours, theirs):
    wanted = {"job_id": [ours.done, ours.paused], "upload_id": [ours.upload], "name": ["checkpoint.pt", "x"]}
    tried = 0
    for path in paths(keyed):
        names = re.findall(r"{(\w+)}", path)
        for values in itertools.product(*(wanted[name] for name in names)):
            given = dict(zip(names, values, strict=True))
            unknown = {name: value if name == "name" else unlike(value) for name, value in given.items()}
            for method, way in itertools.product(METHODS, WAYS):
                for query in QUERIES if method == "GET" else ("",):
                    seen, never = (
                        theirs.request(method, path.format(**ids) + query, headers=way) for ids in (given, unknown)
                    )
                    assert told(seen) == told(never), (method, path, way, query)
                    if method in ("GET", "HEAD") and "x" not in query and "limit=0" not in query:
                        assert seen.status_code in (404, 405, 412), (method, path, way, query)
                    tried += 1
    assert tried > 300
    assert keyed.job(ours.done)["state"] == "succeeded"
    assert keyed.job(ours.paused)["state"] == "paused"


def unlike(value):
    """An id of the same length that is nobody's."""
    kind, _, rest = value.partition("_")
    return f"{kind}_{secrets.token_hex(len(rest))[: len(rest)]}"


def test_bodies_that_name_what_is_others(ours, theirs):
    own = {**SPEC, "data": {"dataset": "mnist"}}
    bodies = [
        lambda job, _: {**own, "checkpoint": {"job": job}},
        lambda _, upload: {**own, "checkpoint": {"upload": upload}},
        lambda _, upload: {
            **own,
            "model": {**SPEC["model"], "weights": "random", "num_classes": 10},
            "data": {"upload": upload},
        },
    ]
    for body in bodies:
        seen, never = (
            theirs.post("/jobs", json=body(job, upload))
            for job, upload in ((ours.done, ours.upload), (unlike(ours.done), unlike(ours.upload)))
        )
        assert seen.status_code == 404, seen.text
        assert told(seen) == told(never)
        assert ours.done not in seen.text
    form = {"spec": json.dumps({**own, "checkpoint": {"job": ours.done}})}
    assert theirs.post("/jobs", data=form, files={"data": b"x"}).status_code in (404, 422)


def test_lists_and_keys_are_ones_own(keyed, ours, theirs):
    assert {job["id"] for job in keyed.client.get("/jobs").json()["items"]} >= {ours.done, ours.paused}
    assert theirs.get("/jobs").json() == {"items": [], "next": None}
