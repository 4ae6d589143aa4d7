"""Clients that take for ever, over a real socket: each is answered or hung up on, and the service serves the others."""

from __future__ import annotations

import socket
import time

import pytest

from tests.service import Service

HEAD_SECONDS = 1.0
JOB = "POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http")
    with Service(folder, head_seconds=HEAD_SECONDS, pace_bytes=50, pace_seconds=1) as service:
        yield service


@pytest.fixture
def connect(service):
    host, port = str(service.client.base_url).removeprefix("http://").rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)), 20)
    yield lambda: connection
    connection.close()
    assert service.client.get("/healthz").status_code == 200


def drip(connection, content, seconds=20.0):
    """A byte now and then, until an answer or the end; returns what came."""
    connection.settimeout(0.1)
    came, ends = b"", time.monotonic() + seconds
    for number in range(10**6):
        try:
            connection.sendall(content[number % len(content) :][:1])
            piece = connection.recv(9999)
            if not piece:
                return came.decode()
            came += piece
        except TimeoutError:
            assert time.monotonic() < ends, f"it still listens, and said {came!r}"
        except OSError:
            return came.decode()
    return came.decode()


def test_a_head_that_drips(connect):
    answer = drip(connect(), b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 10_000)
    assert answer.startswith("HTTP/1.1 408 ")
    assert "application/problem+json" in answer
    assert '"code": "request_timeout"' in answer


def test_a_second_head_that_drips(connect):
    connection = connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert connection.recv(9999).startswith(b"HTTP/1.1 200")
    assert "HTTP/1.1 408 " in drip(connection, b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 10_000)


def test_a_connection_that_says_nothing(connect):
    connection = connect()
    assert connection.recv(9999) == b""


def test_a_connection_that_says_nothing_more(connect):
    connection = connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = b""
    while piece := connection.recv(9999):
        answer += piece
    assert answer.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 60000\r\n\r\n", b" "),
        ("Transfer-Encoding: chunked\r\n\r\nFFFFFF\r\n", b" "),
        ("Transfer-Encoding: chunked\r\n\r\n", b"0" * 100_000),
        ("Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["a length", "an endless chunk", "an endless size of a chunk", "tiny chunks"],
)
def test_a_body_that_drips(connect, head, body):
    connection = connect()
    connection.sendall((JOB + head).encode())
    answer = drip(connection, body)
    assert answer.startswith("HTTP/1.1 408 ")
    assert '"code":"request_timeout"' in answer
    assert "connection: close" in answer.lower()


def test_a_form_and_an_upload_that_drip(connect, service):
    tus = {"Tus-Resumable": "1.0.0"}
    url = service.client.post("/uploads", headers={**tus, "Upload-Length": "100000"}).headers["location"]
    connection = connect()
    head = (
        f"PATCH {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        "Content-Type: application/offset+octet-stream\r\nContent-Length: 100000\r\n\r\n"
    )
    connection.sendall(head.encode())
    assert drip(connection, b"x").startswith("HTTP/1.1 408 ")
    arrived = int(service.client.head(url, headers=tus).headers["upload-offset"])
    assert arrived > 0, "what arrived is kept"
    assert service.client.delete(url).json()["freed_bytes"] == arrived


def test_the_rest_of_a_body_that_was_answered(connect):
    """The answer was sent at once; who goes on sending holds the connection no longer for that."""
    connection = connect()
    connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
    assert drip(connection, b"x").startswith("HTTP/1.1 404 ")


def test_a_slow_but_steady_sender_is_served(connect):
    connection = connect()
    content = b'{"defense": "none"' + b" " * 300 + b"}"
    connection.sendall((JOB + f"Content-Length: {len(content)}\r\n\r\n").encode())
    for start in range(0, len(content), 20):
        connection.sendall(content[start : start + 20])
        time.sleep(0.15)
    assert connection.recv(9999).startswith(b"HTTP/1.1 422 ")
