"""What belongs to one tenant is unknown to every other, and no tenant takes more than it may."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.errors import (
    JobNotFoundError,
    JobsError,
    StorageQuotaError,
    TooManyQueuedJobsError,
    UploadNotFoundError,
    UploadTooLargeError,
)
from jobs.keys import KeyRepository
from jobs.limits import Limits
from jobs.repository import JobRepository, NewJob
from jobs.scopes import SCOPES
from jobs.storage import Stored
from jobs.tables import DEFAULT_TENANT
from jobs.uploads import NewPart, NewUpload, UploadRepository
from tests.jobs.report import FILE, REPORT


def new(checkpoint=None, data=None):
    return NewJob({"data": {}}, "cpu", "aft", None, {}, 1, checkpoint, data)


def send(uploads, size):
    """Bytes of an upload of its own."""
    upload = uploads.begin(NewUpload("f", size, standalone=True))
    uploads.append(upload.id, [NewPart(0, size, f"uploads/{upload.id}/0", 0)], 0)


@pytest.fixture
def other(engine):
    """Another tenant."""
    keys = KeyRepository(engine)
    return keys.find(keys.create("theirs", "k", SCOPES)[1]).tenant_id


@pytest.fixture
def theirs(engine, other):
    """Its repository."""
    return JobRepository(engine, other)


@pytest.fixture
def their_uploads(engine, other):
    return UploadRepository(engine, other, unfinished_seconds=60)


def test_every_query_names_the_tenant(repository, theirs, their_uploads, leases, submit):
    """Each method that takes an id, found by its signature: a new one is tested by being there."""
    job = submit()
    leases.succeed(leases.claim("me", 30, ["cpu"]), REPORT, {"a": FILE}, {})
    assert repository.events(job.id, after=0, limit=9)
    assert repository.artifacts(job.id, "output")
    unknown = {"job_id": JobNotFoundError, "upload_id": UploadNotFoundError}
    more = {"after": 0, "limit": 9, "kind": "output", "state": None, "defense": None}
    more |= {"parts": [], "offset": 10, "size": 10, "who": "me"}
    tried = set()
    methods = [each for owner in (theirs, their_uploads) for each in inspect.getmembers(owner, inspect.ismethod)]
    for name, method in methods:
        parameters = inspect.signature(method).parameters
        (field,) = [each for each in parameters if each in unknown] or [None]
        if name.startswith("_") or field is None:
            continue
        tried.add(name)
        given = {field: job.id if field == "job_id" else job.checkpoint_upload}
        given |= {
            each: more[each] for each in parameters if each in more and parameters[each].default is inspect._empty
        }
        try:
            assert method(**given) in ([], {}), name
        except JobsError as error:
            assert type(error) is unknown[field], name
            with pytest.raises(type(error)) as other:
                method(**{**given, field: "x"})
            assert (str(error), error.hint) == (str(other.value), other.value.hint), "as what never was"
    assert {"upload", "job", "report", "events", "log", "artifacts", "request_cancel", "resume", "delete"} <= tried
    assert {"get", "finished", "append", "set_size", "claim_hashing"} <= tried
    assert theirs.page(state=None, defense=None, limit=9, after=None) == []
    with pytest.raises(UploadNotFoundError):
        theirs.create(new(job.checkpoint_upload))
    assert repository.job(job.id).state == "succeeded"


def limited(engine, **limits):
    return JobRepository(engine, DEFAULT_TENANT, limits=Limits(**limits))


def at_once(count, work):
    def one(number):
        try:
            return work(number)
        except JobsError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(one, range(count))]


def test_no_more_jobs_wait_than_may_however_many_come_at_once(engine, leases):
    repository = limited(engine, max_queued=3)
    done = at_once(10, lambda _: repository.create(new()))
    assert sum(isinstance(each, TooManyQueuedJobsError) for each in done) == 7
    claim = leases.claim("me", 30, ["cpu"])
    repository.create(new())
    with pytest.raises(TooManyQueuedJobsError):
        repository.create(new())
    repository.request_pause(claim.job_id)
    leases.release(claim, charged=False)
    assert repository.resume(claim.job_id).state == "queued", "paused jobs counted before"
    with pytest.raises(TooManyQueuedJobsError):
        repository.create(new())


def room(engine, **limits):
    return UploadRepository(engine, DEFAULT_TENANT, limits=Limits(**limits), unfinished_seconds=60)


def test_no_more_bytes_are_stored_than_may_however_many_come_at_once(engine):
    uploads = room(engine, max_bytes=100, max_upload_bytes=60)
    done = at_once(10, lambda _: send(uploads, 30))
    assert sum(isinstance(each, StorageQuotaError) for each in done) == 7
    send(uploads, 10)
    with pytest.raises(StorageQuotaError):
        send(uploads, 1)
    with pytest.raises(UploadTooLargeError):
        send(uploads, 61)


def test_results_and_states_count_as_stored(engine, repository, leases):
    uploads = room(engine, max_bytes=100)
    job = repository.create(new()).id
    claim = leases.claim("me", 30, ["cpu"])
    leases.add_state(claim, "s", Stored("jobs/s", "0" * 64, 60), epoch=1, step=0)
    with pytest.raises(StorageQuotaError):
        send(uploads, 41)
    leases.succeed(claim, REPORT, {"a": Stored("jobs/a", "0" * 64, 90)}, {})
    with pytest.raises(StorageQuotaError):
        send(uploads, 11)
    repository.delete(job)
    send(uploads, 100)


def test_tenants_do_not_count_for_each_other(engine, theirs, their_uploads):
    for _ in range(3):
        theirs.create(new())
        send(their_uploads, 50)
    limited(engine, max_queued=1).create(new())
    send(room(engine, max_bytes=50), 50)
