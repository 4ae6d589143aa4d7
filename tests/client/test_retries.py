"""What is tried again, how often, after how long; and that a job is made once."""

from __future__ import annotations

import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from temper import Client, JobFailedError, NoConnectionError, RefusedError, TemperError
from temper.http import TRIES, pause
from tests.client.conftest import HARDEN, SPEC


class Unwilling:
    """A server of few words: its answers in order, then 200 with an empty list."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                status, headers, body = (
                    outer.answers.pop(0) if outer.answers else (200, {}, '{"items": [], "next": null}')
                )
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def ask(*answers):
    with Unwilling(*answers) as server, Client(server.url) as client:
        try:
            return client.catalog("defenses"), len(server.requests)
        except TemperError as error:
            return error, len(server.requests)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_passes_is_tried_again(status):
    assert ask((status, {}, ""), (status, {}, "")) == ([], 3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 507])
def test_what_stays_is_not(status):
    error, requests = ask((status, {}, ""))
    assert isinstance(error, RefusedError)
    assert requests == 1


def test_it_is_given_up_at_last():
    error, requests = ask(*[(503, {}, '{"code": "busy", "detail": "too much", "hint": "later"}')] * 20)
    assert str(error) == "too much (later)"
    assert error.code == "busy"
    assert requests == TRIES


def test_retry_after_is_honoured_up_to_a_point():
    pauses = []
    with Unwilling(
        (429, {"Retry-After": "17"}, ""), (503, {"Retry-After": formatdate(4e9, usegmt=True)}, "")
    ) as server:
        client = Client(server.url)
        client._core.http.wire.sleep = lambda seconds: _note(pauses, seconds)
        with client, pytest.raises(RefusedError) as error:
            client.catalog("defenses")
    assert len(pauses) == 1
    assert 17 <= pauses[0] < 18
    assert error.value.retry_after > 1e8  # decades: nobody waits for that


async def _note(pauses, seconds):
    pauses.append(seconds)


def test_pauses_grow_and_differ(monkeypatch):
    monkeypatch.setattr("temper.http._FIRST_PAUSE", 0.5)
    monkeypatch.setattr("temper.http._LONGEST_PAUSE", 20.0)
    assert [pause(n, 0, 0.0) for n in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 10, 10]
    assert [pause(n, 0, 1.0) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert pause(1, 7, 0.0) == 7


def test_an_answer_that_is_not_temper_s():
    error, _ = ask((403, {"Content-Type": "text/html"}, "<h1>Forbidden</h1>"))
    assert "answered 403 Forbidden" in str(error)
    error, _ = ask((409, {}, '{"code": "job_failed", "detail": "no", "failure": {"code": "diverged"}}'))
    assert isinstance(error, JobFailedError)
    assert error.failure["code"] == "diverged"


def test_nobody_there():
    with Unwilling() as server:
        pass
    with Client(server.url) as client, pytest.raises(NoConnectionError, match=server.url):
        client.catalog("defenses")


@pytest.mark.parametrize(
    ("url", "key"), [("nonsense", ""), ("http://a:b", ""), ("http://x", "a\nb"), ("http://x", "é")]
)
def test_an_address_or_key_that_is_none(url, key):
    with pytest.raises(TemperError) as error, Client(url, key) as client:
        client.catalog("defenses")
    assert "a\nb" not in str(error.value)


def test_the_key_goes_along(monkeypatch):
    monkeypatch.setenv("TEMPER_API_KEY", "tmp_secret")
    with Unwilling() as server:
        monkeypatch.setenv("TEMPER_URL", server.url)
        with Client() as client:
            client.catalog("defenses")
    assert server.requests[0][1]["Authorization"] == "Bearer tmp_secret"
    assert server.requests[0][1]["User-Agent"].startswith("temper-client/")


def test_redirects_get_no_key():
    with Unwilling() as other:
        error, _ = ask((307, {"Location": other.url}, ""))
    assert isinstance(error, TemperError)
    assert other.requests == []


def test_a_job_whose_answer_was_lost_is_made_once(client, cutting, example, data):
    sources = {"upload": client.upload(example / "checkpoint.pt")}, {"upload": client.upload(data)}
    before = {job.id for job in client.jobs()}
    cutting.cuts.extend([("down", 0), ("down", 40)])
    with Client(cutting.url) as through:
        job = through.submit(sources[0], data=sources[1], spec=SPEC, **HARDEN)
    assert cutting.broken == 2
    assert {job.id for job in client.jobs()} - before == {job.id}
    client.job(job.id).cancel()
