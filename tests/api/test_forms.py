"""The form of POST /jobs: streamed to where it stays, measured on the way, and nothing left of what is refused."""

from __future__ import annotations

import json
import os
import resource
import socket

import pytest

from tests.api.conftest import SPEC
from tests.api.test_errors import error
from tests.faults.floor import until
from tests.service import Service

MOST = 24 << 20
SMALL = {**SPEC, "defense": "none", "training": None, "evaluation": {"samples": 20, "diagnose": False}}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("forms"), max_upload_bytes=MOST) as service:
        yield service


@pytest.fixture(autouse=True)
def nothing_is_left(service):
    yield
    until(lambda: not stored(service), what="no file")
    assert service.client.get("/uploads").json()["items"] == []


def stored(service):
    return [
        path for path in (service.data_dir / "store").rglob("*") if path.is_file() and path.parts[-1][:6] != "temper"
    ]


def post(service, *parts, end="--b--\r\n", **headers):
    """A form as written by hand; a part is (its headers, its content)."""
    body = b"".join(b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    headers = {"Content-Type": "multipart/form-data; boundary=b", **headers}
    return service.client.post("/jobs", content=body + end.encode(), headers=headers)


def file(name, content=b"x", filename="f"):
    return f'Content-Disposition: form-data; name="{name}"; filename="{filename}"', content


def field(name, content):
    return f'Content-Disposition: form-data; name="{name}"', content


@pytest.mark.parametrize(
    ("parts", "field_at_fault", "words"),
    [
        ([file("checkpoint"), file("colour")], "colour", "no such form field"),
        ([file("checkpoint"), file("checkpoint")], "checkpoint", "twice"),
        ([file("checkpoint"), field("eps", b"1"), field("eps", b"2")], "eps", "twice"),
        ([file("checkpoint"), file("spec", b"{}")], "spec", "send text"),
        ([file("data"), field("checkpoint", b"model.pt")], "checkpoint", "-F checkpoint=@FILE"),
        ([file("data"), field("spec", b"a\0b")], "spec", "NUL"),
        ([file("checkpoint"), file("data"), field("defense", b"aftt")], "defense", "is not known"),
    ],
)
def test_a_form_that_is_refused(service, parts, field_at_fault, words):
    parts = [*parts] if field_at_fault != "defense" else [*parts, field("architecture", b"fmnist-cnn")]
    row = error(post(service, *parts))["errors"][0]
    assert row["field"] == field_at_fault
    assert words in row["message"]


@pytest.mark.parametrize(
    ("parts", "end", "status"),
    [
        ([file("checkpoint")], "", 400),
        ([file("checkpoint"), ("X: y", b"")], "--b--\r\n", 400),
        (
            [("Content-Disposition: form-data; name=checkpoint; filename=f\r\n" + "X: y\r\n" * 50, b"x")],
            "--b--\r\n",
            400,
        ),
        ([("Content-Disposition: form-data; name=eps; x=" + "y" * 100_000, b"x")], "--b--\r\n", 400),
        ([file("checkpoint"), field("spec", bytes(2 << 20))], "--b--\r\n", 413),
    ],
    ids=["no end", "no name", "many headers", "a long header", "a long field"],
)
def test_a_form_that_is_malformed(service, parts, end, status):
    error(post(service, *parts, end=end), status)


def test_no_boundary(service):
    error(post(service, file("data"), **{"Content-Type": "multipart/form-data"}), 400)


def test_a_body_that_is_too_long_is_refused_before_anything_is_stored(service):
    """Not a byte of it is sent."""
    host, port = str(service.client.base_url).removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = (
            "POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {MOST + 1}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(9999).startswith(b"HTTP/1.1 413")
    assert not stored(service)


def test_a_chunked_body_is_cut_at_the_limit(service):
    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="data"; filename="d"\r\n\r\n'
        for _ in range(MOST >> 20):
            yield bytes(1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert error(service.client.post("/jobs", content=body(), headers=headers), 413)["code"] == "upload_too_large"


def test_a_broken_connection_leaves_nothing(service):
    host, port = str(service.client.base_url).removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = (
            "POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {MOST}\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="checkpoint"; filename="c.pt"\r\n\r\n'
        )
        connection.sendall(head.encode() + os.urandom(9 << 20))
        until(lambda: len(stored(service)) == 2, what="two parts")


def test_a_full_disk_is_said(service):
    """The process may write no file that is as long as a part."""
    pid, limits = service.process.pid, (3 << 20, resource.RLIM_INFINITY)
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    try:
        answer = post(service, file("checkpoint", os.urandom(5 << 20)))
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert error(answer, 507)["code"] == "storage_full"


def test_files_arrive_as_they_were_sent(service, example, data):
    """In any order, also with lines that look like boundaries, and go with their job."""
    name = "../../a\\b/é.pt"
    answer = post(
        service,
        file("data", data.read_bytes(), "d.npz"),
        field("spec", json.dumps(SMALL).encode()),
        file("checkpoint", (example / "checkpoint.pt").read_bytes(), name.replace("\\", "/")),
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    checkpoint = service.client.get(f"/uploads/{job['checkpoint']['upload']}").json()
    assert (checkpoint["filename"], checkpoint["size"]) == ("é.pt", (example / "checkpoint.pt").stat().st_size)
    service.client.post(f"/jobs/{job['id']}/cancel")
    service.wait(job["id"])
    freed = service.client.delete(f"/jobs/{job['id']}").json()["freed_bytes"]
    assert freed == (example / "checkpoint.pt").stat().st_size + data.stat().st_size


def test_a_job_that_expires(service, example, data):
    spec = {**SMALL, "expires_after": 10**9}
    refused = error(service.post(example / "checkpoint.pt", data, spec))
    assert refused["errors"][0]["field"] == "expires_after"
    answer = service.post(example / "checkpoint.pt", data, SMALL, expires_after="3600")
    assert answer.json()["spec"]["expires_after"] == 3600
    job = answer.json()["id"]
    service.client.post(f"/jobs/{job}/cancel")
    service.wait(job)
    service.client.delete(f"/jobs/{job}")
