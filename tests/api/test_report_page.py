"""The report as a page over HTTP, and the static files that pages load."""

from __future__ import annotations

import pytest

from tests.web.pages import Page
from web.environment import static_files, static_url
from web.report.page import content_policy

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}  # as browsers send it


def test_a_browser_gets_the_page_and_all_others_the_json(service, done):
    path = f"/jobs/{done}/report"
    report = service.client.get(path).json()
    for accept in ("*/*", "application/json", "application/json, text/html"):
        answer = service.client.get(path, headers={"Accept": accept})
        assert answer.json() == report, accept
    answer = service.client.get(path, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == f"{content_policy()}; frame-ancestors 'none'"
    assert answer.headers["vary"] == "Accept"
    page = Page(answer.text)
    robust = report["after"]["robust"]
    assert page.rows("accuracy-table")[-1][2].startswith(f"{robust['accuracy']:.1%} {robust['correct']} of 60")
    # the pictures that the job made are in it
    assert {"examples", "embedding"} <= set(page.all("id"))
    assert "small" in page.text
    assert "content-disposition" not in answer.headers


def test_it_can_be_saved_and_sent_around(service, done):
    answer = service.client.get(f"/jobs/{done}/report", params={"download": 1}, headers=HTML)
    assert answer.headers["content-disposition"] == f'attachment; filename="report-{done}.html"'
    page = Page(answer.text)
    assert all(address.startswith("#") for address in page.all("href"))
    assert all(address.startswith("data:") for address in page.all("src"))
    assert len(answer.content) < 300_000


def test_without_a_report_there_is_a_page_that_says_why(service, example, data):
    missing = service.client.get("/jobs/job_nothing/report", headers=HTML)
    assert missing.status_code == 404
    assert "there is no such job" in Page(missing.text).text
    spec = {"model": {"architecture": "fmnist-cnn"}, "defense": "pgd-at", "training": {"epochs": 100}}
    job = service.submit(example / "checkpoint.pt", data, spec)
    waiting = service.client.get(f"/jobs/{job}/report", headers=HTML)
    assert (waiting.status_code, waiting.headers["retry-after"]) == (202, "5")
    page = Page(waiting.text)
    assert "5" in page.all("content")  # it asks again by itself
    assert job in page.text
    service.client.post(f"/jobs/{job}/cancel").raise_for_status()
    assert service.wait(job)["state"] == "cancelled"
    ended = service.client.get(f"/jobs/{job}/report", headers=HTML)
    assert (ended.status_code, ended.headers["content-type"]) == (409, "text/html; charset=utf-8")
    assert "cancelled" in Page(ended.text).text


def test_a_report_that_the_page_does_not_understand_is_told_so(keyed, ours):
    answer = keyed.client.get(f"/jobs/{ours.done}/report", headers=HTML)
    assert answer.status_code == 409, answer.text
    assert "another version of Temper wrote this report" in Page(answer.text).text


@pytest.mark.parametrize("name", sorted(static_files()))
def test_static_files_are_kept_as_long_as_their_address_names_their_version(service, name):
    answer = service.client.get(static_url(name))
    assert answer.content == static_files()[name].content
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    for address in (f"/static/{name}", f"/static/{name}?v=other"):
        answer = service.client.get(address)
        assert answer.headers["cache-control"] == "public, no-cache"
    again = service.client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["", "nothing.css", "../environment.py", "%2e%2e/environment.py", "//etc/passwd"])
def test_nothing_else_is_static(service, name):
    assert service.client.get(f"/static/{name}").status_code == 404
