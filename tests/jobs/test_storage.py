"""Storage, a folder and S3: what is read back is what was put, or an error."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import httpx
import pytest

from jobs.errors import StorageCorruptError, StorageError, StorageFullError, StorageMissingError
from jobs.storage import Storage
from stack.servers import S3

CONTENT = bytes(range(256)) * 29000  # more than one part of a multipart upload


@pytest.fixture(scope="module")
def s3():
    with S3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return Storage((tmp_path / "store").as_uri())
    server = request.getfixturevalue("s3")
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    return Storage(f"{server.url}/{tmp_path.name}")


@pytest.fixture
def stored(storage, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return storage.put("jobs/a/1/file", path)


def test_round_trip(storage, stored, tmp_path):
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.size == len(CONTENT)
    storage.fetch([stored.key], stored.sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_a_flipped_byte_is_never_handed_out(storage, stored, tmp_path):
    damaged = bytearray(CONTENT)
    damaged[777] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    storage.put(stored.key, tmp_path / "damaged")
    with pytest.raises(StorageCorruptError, match="damaged"):
        storage.fetch([stored.key], stored.sha256, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_delete_twice_and_read_what_is_gone(storage, stored, tmp_path):
    storage.delete([stored.key, stored.key])
    with pytest.raises(StorageMissingError, match="is gone"):
        storage.fetch([stored.key], stored.sha256, tmp_path / "back")


def test_what_is_old_by_the_clock_of_the_store(storage, stored, monkeypatch):
    assert [key for keys in storage.older_than(3600) for key in keys] == []
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert [key for keys in storage.older_than(3600) for key in keys] == []
    monkeypatch.undo()
    time.sleep(2.1)
    assert [key for keys in storage.older_than(1) for key in keys if not key.endswith("clock")] == [stored.key]


def test_an_address_for_anybody_where_the_store_has_one(storage, stored):
    url = storage.signed_url(stored.key, 60)
    if url is not None:
        assert httpx.get(url).content == CONTENT


def test_a_folder_has_no_addresses_and_s3_has(s3, tmp_path, monkeypatch):
    for key, value in s3.environment.items():
        monkeypatch.setenv(key, value)
    assert Storage(tmp_path.as_uri()).signed_url("a", 60) is None
    assert "Signature" in Storage(s3.url).signed_url("a", 60)


def test_a_store_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    storage = Storage("s3://bucket")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError):
        storage.put("a", tmp_path / "file")
    with pytest.raises(StorageError):
        storage.check()


def test_no_room(tmp_path):
    """A process that may write no file of more than a megabyte."""
    import subprocess
    import sys

    (tmp_path / "file").write_bytes(bytes(3 << 20))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from pathlib import Path; from jobs.storage import Storage; from jobs.errors import StorageFullError\n"
        "storage = Storage(Path(sys.argv[1]).as_uri() + '/store')\n"
        "for act in (lambda: storage.put('a', Path(sys.argv[1]) / 'file'),):\n"
        "    try: act()\n"
        "    except StorageFullError as error: print('full', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("full"), done.stderr
    assert not [path for path in Path(tmp_path / "store").rglob("*") if path.is_file()], "nothing half-written is left"
    assert StorageFullError.status == 507
