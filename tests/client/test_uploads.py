"""Uploads arrive whole, once, whatever breaks."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import contextmanager

import pytest

from temper import Client, DamagedError, RefusedError
from temper.display import Display
from tests.client.conftest import HARDEN

PART = 1 << 17
SIZE = 1_000_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("temper.uploads.PART_BYTES", PART)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "größe, 1.bin"
    path.write_bytes(secrets.token_bytes(SIZE))
    return path


@pytest.fixture
def stored(service):
    """What the service has of an upload."""
    return lambda upload: service.client.get(f"/uploads/{upload}").json()


class Interrupting(Display):
    """Does something once so many bytes were sent."""

    def __init__(self, at, what):
        self.at, self.what, self.seen = at, what, []

    @contextmanager
    def bar(self, title):
        def report(done):
            self.seen.append(done)
            if done >= self.at and self.what is not None:
                what, self.what = self.what, None
                what()

        yield lambda total: report


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_goes_on_where_connections_broke(through, cutting, file, stored):
    cutting.cuts.extend([("up", 300_000), ("up", 400_000), ("down", 100), ("up", 200_000)])
    upload = through.upload(file)
    assert stored(upload)["sha256"] == sha256(file)
    assert stored(upload)["filename"] == file.name
    assert cutting.broken == 4
    assert cutting.passed["up"] < SIZE + 4 * PART + 20_000  # what was there was not sent again


def test_another_process_goes_on(url, cutting, through, file, stored):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Client(url, progress=Interrupting(5 * PART, stop)) as first:
        first.upload(file)
    assert stored(through.upload(file))["sha256"] == sha256(file)
    assert cutting.passed["up"] < SIZE - 3 * PART


def test_what_is_there_is_not_sent_again(client, cutting, through, file, tmp_path):
    other = tmp_path / "other name.bin"
    other.write_bytes(file.read_bytes())
    assert client.upload(file) == through.upload(other)
    assert cutting.passed["up"] < 5_000


def test_a_file_that_only_looks_like_one_that_is_there(client, url, file, tmp_path, stored):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Client(url, progress=Interrupting(5 * PART, stop)) as first:
        first.upload(file)
    file.write_bytes(bytes(SIZE - 1) + b"1")  # same name, same size
    assert stored(client.upload(file))["sha256"] == sha256(file)


def test_a_file_that_changes_meanwhile_is_refused(url, service, file):
    def change():
        with file.open("r+b") as opened:
            opened.seek(SIZE - 1)
            opened.write(b"x" if file.read_bytes()[-1:] != b"x" else b"y")

    before = service.client.get("/uploads").json()["items"]
    with Client(url, progress=Interrupting(PART, change)) as client, pytest.raises(DamagedError, match="changed"):
        client.upload(file)
    assert service.client.get("/uploads").json()["items"] == before


def test_progress_is_told_to_the_end(url, file):
    display = Interrupting(0, None)
    with Client(url, progress=display) as client:
        client.upload(file)
    assert display.seen[0] == 0
    assert display.seen[-1] == SIZE
    assert display.seen == sorted(display.seen)
    assert len(display.seen) > SIZE // PART


def test_an_empty_file_is_an_upload_too(client, tmp_path, stored):
    (tmp_path / "empty").touch()
    assert stored(client.upload(tmp_path / "empty"))["size"] == 0


def test_what_the_server_does_not_take(client, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"x")
    with pytest.raises(RefusedError) as error:
        client.submit({"upload": client.upload(file)}, data={"upload": "up_nope"}, **HARDEN)
    assert error.value.code == "upload_not_found"
    assert "data.upload" in str(error.value)
