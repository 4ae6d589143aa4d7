"""Bytes into a store, a folder and S3: resumed, hashed, and nothing left of what does not count."""

from __future__ import annotations

import hashlib
import os

import obstore
import pytest

from jobs.errors import StorageCorruptError, StorageFullError, StorageQuotaError, UploadLengthError, UploadLockedError
from jobs.intake import Hashes, Intake, take_in
from jobs.storage import Storage
from jobs.uploads import NewUpload
from stack.servers import S3

CONTENT = os.urandom(300_000)


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
def url(tmp_path, request):
    """Which database it is makes no difference here."""
    from temperd.schema import upgrade

    url = f"sqlite:///{tmp_path / 'temper.db'}"
    upgrade(url)
    return url


@pytest.fixture
def begin(uploads):
    return lambda size: uploads.begin(NewUpload("a.npz", size, standalone=True))


def files(storage):
    return sorted(meta["path"] for batch in obstore.list(storage._store) for meta in batch)


def digest(uploads, upload):
    return uploads.finished(upload.id).sha256


def test_another_process_goes_on_and_the_hash_is_that_of_the_whole(storage, uploads, begin, tmp_path):
    upload, cut = begin(len(CONTENT)), 123_457
    first = Intake(upload, uploads, storage, Hashes())
    first.add(CONTENT[:1000])
    first.add(CONTENT[1000:cut])
    first.leave()
    second = Intake(uploads.get(upload.id), uploads, storage, Hashes())
    second.add(CONTENT[cut:])
    assert second.finished
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()
    keys = [part.key for part in uploads.parts(upload)]
    storage.fetch(keys, hashlib.sha256(CONTENT).hexdigest(), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_the_same_process_need_not_read_again(storage, uploads, begin, monkeypatch):
    upload, hashes = begin(len(CONTENT)), Hashes()
    for start in range(0, len(CONTENT), 100_000):
        intake = Intake(uploads.get(upload.id), uploads, storage, hashes)
        intake.add(CONTENT[start : start + 100_000])
        intake.leave()
        monkeypatch.setattr(storage, "read", None)
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()


def test_what_the_store_lost_meanwhile_is_no_finished_upload(storage, uploads, begin):
    upload = begin(len(CONTENT))
    first = Intake(upload, uploads, storage, Hashes())
    first.add(CONTENT[:1000])
    storage.put_part(uploads.parts(upload)[0].key, bytes(1000))
    second = Intake(uploads.get(upload.id), uploads, storage, Hashes())
    with pytest.raises(StorageCorruptError, match="damaged"):
        second.add(CONTENT[1000:])
    second.leave()
    assert uploads.get(upload.id).received == 1000
    assert len(files(storage)) == 1


def test_the_slower_of_two_leaves_nothing(storage, uploads, begin):
    upload = begin(len(CONTENT))
    one, two = (Intake(upload, uploads, storage, Hashes()) for _ in range(2))
    one.add(CONTENT[:1000])
    with pytest.raises(UploadLockedError):
        two.add(CONTENT[:2000])
    two.leave()
    one.add(CONTENT[1000:])
    one.leave()
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()
    assert files(storage) == [part.key for part in uploads.parts(upload)]


def test_what_is_held_counts_only_when_it_is_settled(storage, uploads, begin):
    upload = begin(len(CONTENT))
    intake = Intake(upload, uploads, storage, Hashes(), held=True)
    intake.add(CONTENT[:1000])
    intake.add(CONTENT[1000:2000])
    assert uploads.get(upload.id).received == 0
    intake.leave()
    assert files(storage) == []
    intake = Intake(upload, uploads, storage, Hashes(), held=True)
    intake.add(CONTENT[:1000])
    intake.add(CONTENT[1000:])
    intake.settle()
    intake.leave()
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()


def test_a_checksum_that_failed_does_not_spoil_the_hash(storage, uploads, begin):
    upload, hashes = begin(len(CONTENT)), Hashes()
    for content, good in ((CONTENT[:1000], True), (bytes(5000), False), (CONTENT[1000:], True)):
        intake = Intake(uploads.get(upload.id), uploads, storage, hashes, held=True)
        intake.add(content)
        if good:
            intake.settle()
        intake.leave()
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("error", [StorageFullError("full"), StorageQuotaError("full")])
def test_what_fails_leaves_nothing(storage, uploads, begin, monkeypatch, error):
    def fail(*_: object):
        raise error

    upload = begin(len(CONTENT))
    intake = Intake(upload, uploads, storage, Hashes())
    intake.add(CONTENT[:1000])
    with monkeypatch.context() as patch:
        patch.setattr(*((storage, "put_part") if isinstance(error, StorageFullError) else (uploads, "append")), fail)
        with pytest.raises(type(error)):
            intake.add(CONTENT[1000:2000])
    intake.leave()
    assert files(storage) == [part.key for part in uploads.parts(upload)]
    again = Intake(uploads.get(upload.id), uploads, storage, Hashes())
    again.add(CONTENT[1000:])
    assert digest(uploads, upload) == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_at_hand(storage, uploads):
    new = NewUpload("c.pt", None, standalone=False)
    upload = take_in(new, (CONTENT[start : start + 7000] for start in range(0, len(CONTENT), 7000)), uploads, storage)
    assert (upload.size, upload.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    twin = take_in(new, [CONTENT], uploads, storage)
    assert twin.content == upload.content
    assert files(storage) == [part.key for part in uploads.parts(upload)]

    def breaks():
        yield CONTENT[:10]
        raise StorageCorruptError("x")

    with pytest.raises(StorageCorruptError):
        take_in(new, breaks(), uploads, storage)
    assert len(files(storage)) == 1
    assert len(uploads.page(limit=9, after=None)) == 2


def test_nothing_is_more_than_was_announced(storage, uploads, begin):
    upload = begin(10)
    intake = Intake(upload, uploads, storage, Hashes())
    with pytest.raises(UploadLengthError):
        intake.add(bytes(11))
    intake.add(bytes(10))
    assert uploads.finished(upload.id).size == 10
