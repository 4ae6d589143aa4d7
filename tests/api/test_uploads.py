"""tus at /uploads, over a real socket: what is sent is there, what is not is not, and an existing client agrees."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import signal
import socket
import threading

import httpx
import pytest
from tusclient.client import TusClient

from tests.api.conftest import SPEC
from tests.api.test_errors import error
from tests.faults.floor import until
from tests.service import Service

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
PART = 4 << 20
MOST = 64 << 20
SIZE = 2 * PART + 12_345
CONTENT = os.urandom(SIZE)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One that takes smaller files than usual."""
    with Service(tmp_path_factory.mktemp("uploads"), max_upload_bytes=MOST, max_transfers=3) as service:
        yield service


@pytest.fixture
def client(service):
    yield service.client
    for upload in service.client.get("/uploads").json()["items"]:
        service.client.delete(f"/uploads/{upload['id']}")
    assert stored(service) == [], "what is deleted leaves no file"


def stored(service):
    return [path for path in (service.data_dir / "store" / "uploads").rglob("*") if path.is_file()]


def begin(client, size=SIZE, **headers):
    answer = client.post("/uploads", headers={**TUS, "Upload-Length": str(size), **headers})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def send(client, url, content, offset, **headers):
    return client.patch(url, content=content, headers={**BYTES, "Upload-Offset": str(offset), **headers})


def offset(client, url):
    answer = client.head(url, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_the_server_says_what_it_can(client):
    answer = client.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(MOST)
    assert {"creation", "creation-with-upload", "checksum", "expiration", "termination"} <= {
        *answer.headers["tus-extension"].split(",")
    }
    assert answer.headers["tus-checksum-algorithm"] == "sha256,sha1"


def test_a_file_in_two_requests(client):
    metadata = f"filename {encoded('d/ata.npz')},purpose {encoded('data')},expires_after {encoded('3600')}"
    url = begin(client, **{"Upload-Metadata": metadata})
    first = send(client, url, CONTENT[:1000], 0)
    assert (first.status_code, first.headers["upload-offset"], first.headers["tus-resumable"]) == (204, "1000", "1.0.0")
    assert "GMT" in first.headers["upload-expires"]
    head = client.head(url, headers=TUS)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("1000", str(SIZE))
    assert (head.headers["upload-metadata"], head.headers["cache-control"]) == (metadata, "no-store")
    half = client.get(url).json()
    assert (half["state"], half["received"], half["sha256"]) == ("receiving", 1000, None)
    assert send(client, url, CONTENT[1000:], 1000).headers["upload-offset"] == str(SIZE)
    whole = client.get(url).json()
    assert (whole["state"], whole["filename"], whole["purpose"]) == ("finished", "ata.npz", "data")
    assert whole["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert whole["expires_at"] > whole["finished_at"]
    assert send(client, url, b"", SIZE).status_code == 204, "once more is no error"
    assert error(send(client, url, b"x", SIZE), 413)["code"] == "upload_length"
    assert client.delete(url).json() == {"id": whole["id"], "freed_bytes": SIZE}
    assert error(client.get(url), 404)["code"] == "upload_not_found"


def test_bytes_with_the_creation_a_length_that_comes_later_and_none_at_all(client):
    deferred = {**BYTES, "Upload-Defer-Length": "1"}
    answer = client.post("/uploads", content=CONTENT[:5], headers=deferred)
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "5")
    assert answer.headers["upload-defer-length"] == "1"
    url = answer.headers["location"]
    assert send(client, url, b"", 5, **{"Upload-Length": "4"}).status_code == 409
    assert send(client, url, b"", 5, **{"Upload-Length": str(MOST + 1)}).status_code == 413
    assert send(client, url, CONTENT[5:9], 5, **{"Upload-Length": "9"}).status_code == 204
    assert client.get(url).json()["sha256"] == hashlib.sha256(CONTENT[:9]).hexdigest()
    empty = client.post("/uploads", headers={**TUS, "Upload-Length": "0"}).headers["location"]
    assert client.get(empty).json()["sha256"] == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": "1e3"}, 400),
        ({"Upload-Length": "9" * 20}, 400),
        ({"Upload-Length": str(MOST + 1)}, 413),
        ({"Upload-Defer-Length": "2"}, 400),
        ({"Upload-Defer-Length": "1", "Upload-Length": "3"}, 400),
        ({"Upload-Length": "3", "Upload-Metadata": "filename !"}, 400),
        ({"Upload-Length": "3", "Upload-Metadata": "a YQ==,a YQ=="}, 400),
        ({"Upload-Length": "3", "Upload-Metadata": f"expires_after {encoded('soon')}"}, 400),
        ({"Upload-Length": "3", "Tus-Resumable": "0.2.2"}, 412),
    ],
)
def test_a_creation_that_is_refused(client, headers, status):
    answer = client.post("/uploads", headers={**TUS, **headers})
    error(answer, status)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert ("tus-version" in answer.headers) == (status == 412)
    assert client.get("/uploads").json()["items"] == []


def test_a_request_that_is_refused_changes_nothing(client):
    url = begin(client)
    send(client, url, CONTENT[:100], 0)
    wrong = {
        409: {"Upload-Offset": "99"},
        415: {"Content-Type": "application/octet-stream"},
        400: {"Upload-Offset": "x"},
        412: {"Tus-Resumable": "2.0.0"},
        413: {},
    }
    for status, headers in wrong.items():
        content = bytes(SIZE) if status == 413 else CONTENT[100:200]
        answer = client.patch(url, content=content, headers={**BYTES, "Upload-Offset": "100", **headers})
        error(answer, status)
        assert answer.headers["tus-resumable"] == "1.0.0"
    assert error(send(client, "/uploads/up_x", b"x", 0), 404)["code"] == "upload_not_found"
    assert client.head("/uploads/up_x", headers=TUS).status_code == 404
    assert client.head(url).status_code == 412
    assert offset(client, url) == 100


def test_a_chunked_body_is_cut_at_the_length(client):
    url = begin(client, size=100)
    assert error(send(client, url, iter([bytes(60), bytes(60)]), 0), 413)["code"] == "upload_length"
    assert offset(client, url) == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_a_checksum(client, algorithm):
    url = begin(client)
    digest = base64.b64encode(hashlib.new(algorithm, CONTENT[: PART + 9]).digest()).decode()
    spoiled = bytes([CONTENT[0] ^ 1]) + CONTENT[1 : PART + 9]
    refused = error(send(client, url, spoiled, 0, **{"Upload-Checksum": f"{algorithm} {digest}"}), 460)
    assert refused["code"] == "checksum_mismatch"
    assert offset(client, url) == 0
    assert send(client, url, CONTENT[: PART + 9], 0, **{"Upload-Checksum": f"{algorithm} {digest}"}).status_code == 204
    for header in ("md5 AAAA", "sha1 !", "sha1"):
        answer = send(client, url, CONTENT[PART + 9 :], PART + 9, **{"Upload-Checksum": header})
        assert answer.status_code in (400, 460)
    assert send(client, url, CONTENT[PART + 9 :], PART + 9).status_code == 204
    assert client.get(url).json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_of_two_that_send_at_once_one_wins(service, client):
    url = begin(client)
    contents = {name: bytes([name]) * SIZE for name in (1, 2)}
    barrier, statuses = threading.Barrier(2), {}

    def patch(name):
        barrier.wait()
        statuses[name] = httpx.patch(
            f"{client.base_url}{url}", content=contents[name], headers={**BYTES, "Upload-Offset": "0"}, timeout=60
        ).status_code

    threads = [threading.Thread(target=patch, args=(name,)) for name in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) in ([204, 409], [204, 423])
    winner = next(name for name, status in statuses.items() if status == 204)
    assert client.get(url).json()["sha256"] == hashlib.sha256(contents[winner]).hexdigest()
    until(lambda: sum(path.stat().st_size for path in stored(service)) == SIZE, what="only the winner's bytes")


def raw(service, request, body=b""):
    """A request that is never finished."""
    host, port = str(service.client.base_url).removeprefix("http://").rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(request.replace("\n", "\r\n").encode() + body)
    return connection


def patching(url, size, at=0, more=""):
    return (
        f"PATCH {url} HTTP/1.1\nHost: {{}}\nTus-Resumable: 1.0.0\nUpload-Offset: {at}\n{more}"
        f"Content-Type: application/offset+octet-stream\nContent-Length: {size}\n\n"
    ).format("127.0.0.1")


def test_a_broken_connection_keeps_what_arrived(service, client):
    url = begin(client)
    cut = PART + 777
    raw(service, patching(url, SIZE), CONTENT[:cut]).close()
    until(lambda: offset(client, url) == cut, what="what arrived")
    checked = "Upload-Checksum: sha1 AAAA\n"
    raw(service, patching(url, 5000, cut, checked), CONTENT[cut : cut + 4000]).close()
    assert send(client, url, CONTENT[cut:], cut).status_code == 204, "with a checksum, nothing of it is kept"
    assert client.get(url).json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_client_that_exists(client):
    tus = TusClient(f"{client.base_url}/uploads")
    urls = []
    for more in ({}, {"upload_checksum": True}, {"chunk_size": SIZE + 1}):
        arguments = {"chunk_size": 3_000_000, "metadata": {"filename": "d.npz"}, **more}
        uploader = tus.uploader(file_stream=io.BytesIO(CONTENT), **arguments)
        uploader.upload()
        urls.append(uploader.url)
        assert client.get(uploader.url).json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    shared = [client.delete(url).json()["freed_bytes"] for url in urls]
    assert shared == [0, 0, SIZE], "the same bytes are kept once"


def test_kill_9_in_the_middle_and_a_client_that_goes_on(tmp_path):
    """Twice, so that each of the processes knows only a part of it."""
    with Service(tmp_path / "data") as service:
        url = begin(service.client)
        for _ in range(2):
            at = offset(service.client, url)
            connection = raw(service, patching(url, SIZE - at, at), CONTENT[at : at + PART + 99])
            until(lambda at=at: offset(service.client, url) >= at + PART, what="a part")
            service.kill(signal.SIGKILL)
            connection.close()
            service.start()
        assert 2 * PART <= offset(service.client, url) < SIZE
        uploader = TusClient(f"{service.client.base_url}/uploads").uploader(
            file_stream=io.BytesIO(CONTENT), url=f"{service.client.base_url}{url}", chunk_size=5000
        )
        uploader.upload()
        assert service.client.get(url).json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_methods_that_a_client_cannot_say(client):
    url = begin(client, size=3)
    headers = {**BYTES, "X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
    assert client.post(url, content=b"abc", headers=headers).status_code == 204
    assert client.post(url, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.get(url).status_code == 404


def test_pages(client):
    ids = [begin(client, size=number).rpartition("/")[2] for number in range(1, 6)]
    seen, cursor = [], None
    while True:
        page = client.get("/uploads", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_a_job_from_uploads(service, client, example, data):
    urls = {}
    for name, path in (("checkpoint", example / "checkpoint.pt"), ("data", data)):
        content = path.read_bytes()
        urls[name] = begin(client, len(content), **{"Upload-Metadata": f"filename {encoded(path.name)}"})
        if name == "data":
            refused = post(client, urls)
            assert (refused.status_code, refused.json()["code"]) == (409, "upload_unfinished")
        assert send(client, urls[name], content, 0).status_code == 204
    answer = post(client, urls)
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    held = error(client.delete(urls["data"]), 409)
    assert (held["code"], job in held["detail"]) == ("upload_in_use", True)
    client.post(f"/jobs/{job}/cancel")
    ended = service.wait(job)
    assert ended["data"] == {"upload": urls["data"].rpartition("/")[2]}
    size = data.stat().st_size
    assert client.delete(urls["data"]).json()["freed_bytes"] == size
    assert client.get(f"/jobs/{job}").status_code == 200
    assert post(client, urls).json()["code"] == "upload_not_found"
    client.delete(f"/jobs/{job}")
    assert client.get(urls["checkpoint"]).status_code == 200, "it was sent for itself"


def post(client, urls):
    references = {name: {"upload": url.rpartition("/")[2]} for name, url in urls.items()}
    spec = {**SPEC, "defense": "none", "training": None, "evaluation": {"samples": 20, "diagnose": False}}
    return client.post("/jobs", json={**spec, **references})


def test_more_bodies_at_a_time_than_there_are_places(service, client):
    url = begin(client)
    holders = []

    def full():
        holders.append(raw(service, patching(url, SIZE), b"x"))
        return send(client, url, b"", 0).status_code == 503

    try:
        until(full, what="a full house")
        assert len(holders) >= 3
    finally:
        for holder in holders:
            holder.close()
    until(lambda: send(client, url, b"", offset(client, url)).status_code == 204, what="a place")
