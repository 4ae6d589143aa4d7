"""A service without keys: a page in the user's browser can neither change nor learn anything."""

from __future__ import annotations

import pytest

from api.browsers import check_open, check_origin
from api.refusals import CrossSiteError
from tests.api.test_errors import error

FORM = {"architecture": "fmnist-cnn", "defense": "aft"}
VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "same-site"},
        VISIT,
    ],
)
def test_a_page_of_another_origin_posts_no_job(service, example, data, headers):
    """Multipart needs no preflight: a plain form could send it."""
    before = service.client.get("/jobs").json()
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes(), "data": data.read_bytes()}
    refused = service.client.post("/jobs", data=FORM, files=files, headers=headers)
    assert error(refused, 403)["code"] == "cross_site"
    assert service.client.get("/jobs").json() == before
    for path in ("/jobs/job_x/cancel", "/login", "/logout"):
        assert error(service.client.post(path, headers=headers), 403)["code"] == "cross_site"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", ""]
)
def test_a_name_that_was_rebound_reaches_nothing(service, host):
    for path in ("/jobs", "/docs", "/healthz"):
        answer = service.client.get(path, headers={"Host": host})
        if path != "/healthz":
            assert error(answer, 403)["code"] == "host_not_allowed"
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert error(service.client.post("/jobs/job_x/cancel", headers=page), 403)["code"] == "host_not_allowed"


def test_reads_that_a_page_could_time_are_refused_and_links_are_not(service, done):
    for mode, dest in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe"), ("no-cors", "script")):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        assert error(service.client.get(f"/jobs/{done}", headers=headers), 403)["code"] == "cross_site"
    assert service.client.get("/docs", headers=VISIT).status_code == 200


def test_scripts_and_the_services_own_pages_work(service, done):
    origin = str(service.client.base_url).rstrip("/")
    port = service.client.base_url.port
    own = {"Origin": origin, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    for headers in ({}, own, {"Sec-Fetch-Site": "none"}, {"Host": f"localhost:{port}"}, {"Host": f"[::1]:{port}"}):
        assert service.client.get(f"/jobs/{done}", headers=headers).status_code == 200
        assert service.client.post("/jobs/job_x/cancel", headers=headers).status_code == 404
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert service.client.post("/jobs/job_x/cancel", headers=tunnel).status_code == 404


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"])
def test_through_a_proxy_nobody_comes_without_a_key(service, header):
    refused = service.client.get("/jobs", headers={header: "for=192.0.2.1"})
    assert error(refused, 403)["code"] == "proxied_without_keys"
    assert "temperd keys create" in refused.json()["hint"]


def scope(method="POST", scheme="http", **headers):
    rows = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "scheme": scheme, "headers": rows}


def test_a_browsers_session_has_to_say_where_its_page_is_from():
    check_origin(scope(Host="t.example", Origin="https://t.example", scheme="https"), certain=True)
    check_origin(scope(Host="t.example", Sec_Fetch_Site="same-origin"), certain=True)
    check_origin(scope(Host="t.example"))
    for asked in (
        scope(Host="t.example"),
        scope(Host="t.example", Origin="http://t.example", scheme="https"),
        scope(Host="t.example", Origin="https://a.t.example", scheme="https"),
    ):
        with pytest.raises(CrossSiteError):
            check_origin(asked, certain=True)
    check_open(scope("GET", Host="LOCALHOST:1"))
