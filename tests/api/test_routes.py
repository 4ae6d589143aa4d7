"""What holds for every route and every error: a scope, a page, an id, and nothing that nobody should see."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from api.door import PUBLIC
from api.front import HEADERS, Front
from api.openapi import scope_of
from api.pages import PageRoute
from api.services import Services
from jobs.errors import JobsError
from jobs.keys import KeyRepository
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.upkeep import Upkeep

ROOT = Path(__file__).parents[2]
SOURCES = [path for package in ("api", "core", "ingest", "jobs", "worker") for path in (ROOT / package).rglob("*.py")]


@pytest.fixture
def app(tmp_path, engine):
    settings = Settings(data_dir=tmp_path)
    storage = Storage(settings.store)
    return create_app(
        Services(
            None,
            None,
            None,
            KeyRepository(engine),
            Upkeep(engine),
            storage,
            settings,
            ring=print,
            checks={},
            transfers=None,
            copies=None,
            signing_keys=None,
        )
    )


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_every_route_has_a_scope_or_is_known_to_be_public(app):
    routes = app.state.routes
    assert len(routes) > 25
    assert {route.path for route in routes if scope_of(route) is None} == PUBLIC
    for route in routes:
        assert isinstance(route, APIRoute)
        expected = {"jobs:read", "admin", None} if route.methods <= {"GET", "HEAD", "OPTIONS"} else {"jobs:write", None}
        if isinstance(route, PageRoute) and route.path == "/new":
            expected = {"jobs:write"}  # a form for those who may send it
        assert scope_of(route) in expected, route.path
    assert scope_of(next(route for route in routes if route.path == "/metrics")) == "admin"
    known = {(path, method) for path, item in app.openapi()["paths"].items() for method in item}
    assert {
        (route.path, method.lower()) for route in routes for method in route.methods if route.include_in_schema
    } == (known), "none is served that the walk does not see"


def codes(path):
    """Stable codes in a source file: of error classes, of failures as dicts, and of problems that are made at once."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for row in node.body:
                targets = row.targets if isinstance(row, ast.Assign) else [getattr(row, "target", None)]
                for target in filter(None, targets):
                    names = [each.id for each in getattr(target, "elts", [target])]
                    if "code" in names and row.value is not None:
                        value = getattr(row.value, "elts", [row.value])[names.index("code")]
                        yield ast.literal_eval(value)
        elif isinstance(node, ast.Dict):
            keys = [getattr(key, "value", None) for key in node.keys]
            value = node.values[keys.index("code")] if {"code", "blame"} <= {*keys} else None
            if isinstance(value, ast.Constant):
                yield value.value
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "problem":
            if isinstance(node.args[1], ast.Constant):
                yield node.args[1].value
            elif isinstance(node.args[1], ast.JoinedStr):
                yield from ("job_failed", "job_cancelled")
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HTTP_CODES":
            yield from ast.literal_eval(node.value).values()


def test_the_page_of_errors_has_every_code_and_no_other():
    found = {path: {*codes(path)} for path in SOURCES}
    assert len({*found}) > 50
    page = (ROOT / "docs" / "errors.md").read_text()
    answers, _, rest = page.partition("## Failures of jobs")
    failures, _, unseen = rest.partition("## Never seen by users")

    def first_column(text):
        return re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE)

    for text in (answers, failures):
        assert first_column(text) == sorted({*first_column(text)}), "in order, each once"
    hidden = {*re.findall(r"`([a-z_]+)`", unseen)}
    of_answers = {c for path, c in pairs(found) if path.relative_to(ROOT).parts[0] in ("api", "jobs")}
    of_failures = {c for path, c in pairs(found) if path.relative_to(ROOT).parts[0] in ("core", "ingest", "worker")}
    assert {*first_column(answers)} == of_answers - hidden - {"poison"} | {"http_error"}
    assert {*first_column(failures)} == of_failures | {"poison", "storage_corrupt"}


def pairs(found):
    return [(path, code) for path, several in found.items() for code in several]


def test_the_statuses_of_the_page_are_those_of_the_classes():
    page = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) ", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE))

    def tree(kind):
        for child in kind.__subclasses__():
            yield child
            yield from tree(child)

    for kind in tree(JobsError):
        if kind.code in page:
            assert int(page[kind.code]) == kind.status, kind


def ask(app, path="/", **headers):
    async def asked():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(asked())


def test_a_fault_tells_the_client_its_id_and_the_log_where_it_was(caplog):
    secret = "tmp_VERYSECRET"

    def fail():
        password = f"{secret}{Path.cwd()}"
        raise KeyError(password)

    async def broken(_scope, _receive, _send):
        try:
            fail()
        except KeyError as error:
            raise RuntimeError(f"because of {secret}") from error

    with caplog.at_level(logging.DEBUG):
        answer = ask(Front(broken), **{"X-Request-Id": "mine-1"})
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "code": "internal",
        "detail": "an unexpected fault of the service; its log has the details",
        "request_id": "mine-1",
    }
    assert "RuntimeError" in caplog.text
    assert "KeyError" in caplog.text
    assert "test_routes.test_a_fault" in caplog.text
    for hidden in (secret, str(Path.cwd()), "Traceback", '.py"'):
        assert hidden not in caplog.text


def test_an_answer_that_began_is_cut_and_not_mended(caplog):
    async def broken(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Front(broken)({"type": "http", "headers": []}, None, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("given", ["a b", "x" * 65, "", "a\u00e4", '"', "a{b}"])
def test_ids_that_could_confuse_a_log_are_replaced(service, given):
    answer = service.client.get("/jobs/job_x", headers={"X-Request-Id": given.encode()})
    assert re.fullmatch(r"req_[0-9a-f]{20}", answer.headers["X-Request-Id"])
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/healthz", "/jobs", "/nothing", "/jobs/%00", "/docs", "/jobs?limit=x"])
def test_every_answer_has_an_id_and_the_headers_for_browsers(service, path):
    answer = service.client.get(path, headers={"X-Request-Id": "A-1_2.3"})
    assert answer.headers["X-Request-Id"] == "A-1_2.3"
    assert {name.lower() for name in HEADERS} <= {*answer.headers}
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


def test_the_docs_load_nothing_from_elsewhere(service):
    page = service.client.get("/docs")
    assert "//" not in page.text
    assert "unsafe" not in page.headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert service.client.get(address).status_code == 200
    assert service.client.get("/docs/x").status_code == 404


def test_a_refused_method_is_told_all_that_would_do(service):
    for path, methods in {
        "/jobs": "GET, POST",
        "/jobs/x": "DELETE, GET",
        "/jobs/x/checkpoint": "GET, HEAD",
        "/jobs/x/cancel": "POST",
    }.items():
        answer = service.client.put(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


def test_what_is_echoed_holds_no_secret(service):
    answer = service.client.post("/jobs", json={"spec": 1}, headers={"Authorization": "Bearer tmp_SECRETSECRET"})
    text = json.dumps([answer.text, dict(answer.headers)])
    assert "SECRETSECRET" not in text
