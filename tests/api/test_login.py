"""A browser's session: by a key, for as long as that is valid, and for no other site's page."""

from __future__ import annotations

import time

import httpx
import pytest

from jobs.scopes import Scope
from tests.api.test_errors import error


@pytest.fixture
def browser(stranger):
    """It says where its page is from, as browsers do."""
    stranger.headers["Origin"] = str(stranger.base_url).rstrip("/")
    return stranger


@pytest.mark.parametrize("how", ["json", "data"])
def test_log_in_look_and_log_out(browser, keys, ours, how):
    _, token = keys.create("ours", "browser", {Scope.READ, Scope.WRITE})
    answer = browser.post("/login", **{how: {"key": token}})
    assert answer.json() == {"scopes": ["jobs:read", "jobs:write"], "expires_in": 7 * 24 * 3600}
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert token not in cookie
    assert browser.get(f"/jobs/{ours.done}").status_code == 200
    assert error(browser.post(f"/jobs/{ours.done}/cancel"), 409)["code"] == "wrong_state"
    stolen = dict(browser.cookies)
    assert browser.post("/logout").status_code == 204
    assert not browser.cookies
    browser.cookies.update(stolen)
    assert error(browser.get("/jobs"), 401)["code"] == "not_authenticated"


def test_streams_end_with_the_session(browser, keys, ours):
    _, token = keys.create("ours", "browser", {Scope.READ, Scope.WRITE})
    browser.post("/login", json={"key": token})
    with (
        httpx.Client(base_url=browser.base_url, cookies=dict(browser.cookies), timeout=60) as page,
        page.stream("GET", f"/jobs/{ours.paused}/events", headers={"Accept": "text/event-stream"}) as stream,
    ):
        chunks = stream.iter_raw()
        assert next(chunks).startswith(b"event: state")
        assert browser.post("/logout").status_code == 204
        deadline = time.monotonic() + 60
        for _ in chunks:
            assert time.monotonic() < deadline, "it goes on"


def test_the_session_ends_with_its_key(browser, keys):
    key_id, token = keys.create("ours", "browser", {Scope.READ})
    browser.post("/login", json={"key": token})
    assert browser.get("/jobs").status_code == 200
    keys.revoke(key_id)
    assert error(browser.get("/jobs"), 401)["code"] == "not_authenticated"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}],
)
def test_no_other_page_uses_the_session(browser, keys, ours, headers):
    _, token = keys.create("ours", "browser", {Scope.READ, Scope.WRITE})
    browser.post("/login", json={"key": token})
    with httpx.Client(base_url=browser.base_url, cookies=dict(browser.cookies)) as page:
        refused = page.post(f"/jobs/{ours.done}/cancel", headers=headers)
        assert error(refused, 403)["code"] == "cross_site"
    if headers:
        assert error(browser.post("/login", json={"key": token}, headers=headers), 403)["code"] == "cross_site"


def test_behind_tls_the_cookie_is_bound_to_host_and_tls(browser, keys):
    _, token = keys.create("ours", "browser", {Scope.READ})
    # the proxy is on loopback, which uvicorn trusts by default
    proxied = {"X-Forwarded-Proto": "https", "Origin": str(browser.base_url).replace("http:", "https:").rstrip("/")}
    answer = browser.post("/login", json={"key": token}, headers=proxied)
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == "__Host-temper"
    assert "Secure" in rest
    assert "Domain" not in rest
    session = rest.partition(";")[0]
    sent = {"Cookie": f"{name}={session}"}
    assert browser.get("/jobs", headers={**sent, **proxied}).status_code == 200
    assert browser.get("/jobs", headers=sent).status_code == 401, "not over a plain connection"


@pytest.mark.parametrize(
    "body",
    [{"json": {"key": "tmp_x"}}, {"json": {}}, {"json": [1]}, {"json": {"key": 3}}, {"data": {"key": ""}},
     {"content": "{", "headers": {"Content-Type": "application/json"}}],
)  # fmt: skip
def test_what_is_no_key_begins_no_session(browser, body):
    refused = browser.post("/login", **body)
    assert error(refused, 401)["code"] == "invalid_key"
    assert "Set-Cookie" not in refused.headers


def test_an_open_service_needs_no_session(service):
    answer = service.client.post("/login", json={"key": "x"})
    assert answer.json() == {"scopes": ["admin", "jobs:read", "jobs:write"], "expires_in": None}
    assert "Set-Cookie" not in answer.headers
