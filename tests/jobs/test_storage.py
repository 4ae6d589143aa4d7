"""Storage: what is read back is what was put, or an error."""

from __future__ import annotations

import hashlib

import pytest

from jobs.errors import StorageCorruptError
from jobs.storage import Storage

CONTENT = bytes(range(256)) * 9000


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "store")


@pytest.fixture
def stored(storage, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return storage.put("jobs/a/1/file", path)


def test_round_trip(storage, stored, tmp_path):
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.size == len(CONTENT)
    storage.fetch(stored.key, stored.sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


@pytest.mark.parametrize(("start", "end"), [(0, len(CONTENT)), (5, 6), (1_000_000, 2_200_000)])
def test_ranges(storage, stored, start, end):
    assert b"".join(storage.read(stored.key, start, end)) == CONTENT[start:end]


def test_a_flipped_byte_is_never_handed_out(storage, stored, tmp_path):
    path = tmp_path / "store" / stored.key
    damaged = bytearray(CONTENT)
    damaged[777] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StorageCorruptError):
        storage.fetch(stored.key, stored.sha256, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_delete_twice(storage, stored, tmp_path):
    storage.delete([stored.key, stored.key])
    assert not (tmp_path / "store" / stored.key).exists()
