"""Copies for downloads: verified once, and again whenever the stored file was touched."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import api.copies
from api.copies import Copies, TooManyDownloadsError
from jobs.errors import StorageCorruptError
from jobs.storage import Storage
from jobs.tables import Artifact
from tests.faults.floor import until

CONTENT = os.urandom(3 << 20)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    storage = Storage((tmp_path / "store").as_uri())
    fetched = []
    fetch = storage.fetch
    monkeypatch.setattr(storage, "fetch", lambda *arguments: (fetched.append(arguments), fetch(*arguments)))
    storage.fetched = fetched
    return storage


def put(storage, key, content=CONTENT):
    storage.put_part(key, content)
    return Artifact(key=key, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_ranges_of_one_file_are_read_and_hashed_once(storage, tmp_path):
    copies, artifact = Copies(storage, tmp_path / "work"), put(storage, "jobs/a/1/x")
    for start in (0, 1_000_000, 17):
        assert copies.get(artifact).read(start, 1000) == CONTENT[start : start + 1000]
    assert len(storage.fetched) == 1
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("back_in_time", [False, True])
def test_a_byte_that_was_flipped_meanwhile_is_never_served(storage, tmp_path, back_in_time):
    copies, artifact = Copies(storage, tmp_path / "work"), put(storage, "jobs/a/1/x")
    copies.get(artifact)
    path = tmp_path / "store" / "jobs" / "a" / "1" / "x"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes([CONTENT[0] ^ 1]))
    if back_in_time:  # whoever hides it: what is served was verified
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert copies.get(artifact).read(0, 9) == CONTENT[:9]
    else:
        with pytest.raises(StorageCorruptError):
            copies.get(artifact)


def test_the_oldest_copy_goes_when_there_are_too_many_and_what_is_open_lives_on(storage, tmp_path):
    copies = Copies(storage, tmp_path / "work", most_bytes=2 * len(CONTENT))
    artifacts = [put(storage, f"jobs/a/1/{name}") for name in range(3)]
    held = copies.get(artifacts[0])
    for artifact in artifacts[1:]:
        copies.get(artifact)
    assert held.read(0, 9) == CONTENT[:9]
    copies.get(artifacts[2])
    assert len(storage.fetched) == 3
    assert copies.get(artifacts[0]) is held
    assert len(storage.fetched) == 3
    copies.get(artifacts[1])
    assert len(storage.fetched) == 4, "it had to go"


def test_the_last_copy_goes_too(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(api.copies, "_KEEP_SECONDS", 0.2)
    copies = Copies(storage, tmp_path / "work")
    copies.get(put(storage, "jobs/a/1/x"))
    until(lambda: not copies._copies, what="an end of the last copy")


def test_many_at_once_get_the_same_bytes(storage, tmp_path):
    copies, artifact = Copies(storage, tmp_path / "work"), put(storage, "jobs/a/1/x")
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda start: copies.get(artifact).read(start, 5000), range(0, 80_000, 1000))
    assert [*read] == [CONTENT[start : start + 5000] for start in range(0, 80_000, 1000)]


def test_those_that_come_at_once_share_one_copy(storage, tmp_path):
    copies, artifact = Copies(storage, tmp_path / "work"), put(storage, "jobs/a/1/x")
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(copies.get, [artifact] * 8)]
    assert len(storage.fetched) == 1
    assert len({copy.descriptor for copy in found}) == 1


def test_one_that_is_still_being_read_is_not_copied_again(storage, tmp_path):
    first, second = put(storage, "jobs/a/1/x"), put(storage, "jobs/a/1/y")
    copies = Copies(storage, tmp_path / "work", most_bytes=len(CONTENT) + 1)
    held = [copies.get(artifact) for artifact in [first, second] * 5]
    assert len(storage.fetched) == 2
    assert len({copy.descriptor for copy in held}) == 2


def test_copies_that_are_being_read_take_no_more_than_their_room(storage, tmp_path):
    artifacts = [put(storage, f"jobs/a/1/{number}") for number in range(3)]
    copies = Copies(storage, tmp_path / "work", most_bytes=len(CONTENT))
    held = [copies.get(artifact) for artifact in artifacts[:2]]
    with pytest.raises(TooManyDownloadsError):
        copies.get(artifacts[2])
    assert len(storage.fetched) == 2
    del held[0]
    assert copies.get(artifacts[2]).read(0, 9) == CONTENT[:9]


def test_a_file_larger_than_all_room_is_served_alone(storage, tmp_path):
    copies = Copies(storage, tmp_path / "work", most_bytes=10)
    assert copies.get(put(storage, "jobs/a/1/x")).read(0, 9) == CONTENT[:9]
