"""Webhooks reach their receiver, signed, whatever happens on the way."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.faults.floor import Floor, until

SECRET = "whsec_" + "TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcmsgaGVyZSE="


@pytest.fixture
def receiver():
    """A web server that keeps what it gets; ``answers`` are the statuses of its next answers, then 204."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            server.got.append((dict(self.headers.items()), body))
            self.send_response(server.answers.pop(0) if server.answers else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def floor(tmp_path, postgres_url, redis, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    with Floor(tmp_path, postgres_url, redis.url, webhook_url=url, webhook_secret=SECRET) as floor:
        yield floor


def test_signed_and_told_again_until_it_is_taken(floor, receiver):
    receiver.answers = [503]
    floor.worker()
    job = floor.submit()
    floor.succeeded(job)
    until(lambda: len(receiver.got) == 2, 30, what="the second try")
    (first, body), (second, again) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    assert body == again
    content = Webhook(SECRET).verify(body, first)
    assert content["type"] == "job.succeeded"
    assert content["data"]["id"] == job
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"succeeded", b"failed..."), first)
    assert json.loads(body)["timestamp"].endswith("Z")


def test_gone_is_heeded(floor, receiver):
    receiver.answers = [410]
    floor.worker()
    floor.succeeded(floor.submit())
    floor.wait(floor.submit(mode="crash"))
    until(lambda: len(receiver.got) == 2, what="the second job's")
    until(lambda: floor.upkeep.due(10) == [], what="an empty outbox")
    assert Webhook(SECRET).verify(receiver.got[1][1], receiver.got[1][0])["data"]["failure"]["code"] == "poison"
