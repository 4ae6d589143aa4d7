"""Uploads on a real database: pieces, races, sharing, quotas, and how they go away."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from jobs import limits
from jobs.database import writing
from jobs.errors import (
    JobsError,
    StorageQuotaError,
    UploadInUseError,
    UploadLengthError,
    UploadLockedError,
    UploadNotFoundError,
    UploadOffsetError,
    UploadUnfinishedError,
    WrongStateError,
)
from jobs.retention import Retention
from jobs.tables import DEFAULT_TENANT, Job, Part, Tenant, Upload
from jobs.uploads import NewPart, NewUpload, UploadRepository

A, B = "a" * 64, "b" * 64


@pytest.fixture
def retention(engine):
    return Retention(engine)


@pytest.fixture
def others(engine):
    """The uploads of another tenant."""
    with Session(writing(engine)) as session, session.begin():
        session.add(Tenant(id="others", name="others", created_at=0.0))
    return UploadRepository(engine, "others", unfinished_seconds=3600)


def change(engine, table, row, **values):
    with Session(writing(engine)) as session, session.begin():
        session.execute(update(table).where(table.id == row).values(**values))


def stored_bytes(engine, tenant=DEFAULT_TENANT):
    with Session(engine) as session:
        return limits.stored_bytes(session, tenant)


def part(upload, offset, size, name="x"):
    return NewPart(offset, size, f"uploads/{upload.id}/{offset}-{name}", 0)


def test_an_upload_grows_part_by_part_and_is_finished_by_the_last(uploads, engine):
    upload = uploads.begin(NewUpload("a.npz", 30, standalone=True))
    uploads.append(upload.id, [part(upload, 0, 10), part(upload, 10, 10)], 0)
    assert (uploads.get(upload.id).received, stored_bytes(engine)) == (20, 20)
    with pytest.raises(UploadUnfinishedError, match="20 of 30"):
        uploads.finished(upload.id)
    with pytest.raises(UploadLengthError):
        uploads.append(upload.id, [part(upload, 20, 11)], 20)
    uploads.append(upload.id, [part(upload, 20, 10)], 20, A)
    assert uploads.finished(upload.id).sha256 == A
    assert [each.offset for each in uploads.parts(upload)] == [0, 10, 20]
    with pytest.raises(UploadLockedError):
        uploads.append(upload.id, [part(upload, 30, 1)], 30)


def test_of_two_that_race_one_wins_and_the_other_stores_nothing(uploads, engine):
    for _ in range(5):
        upload, barrier, ends = uploads.begin(NewUpload("a.npz", 20, standalone=True)), threading.Barrier(2), []

        def append(name, upload=upload, barrier=barrier, ends=ends):
            barrier.wait()
            try:
                uploads.append(upload.id, [part(upload, 0, 10, name)], 0)
                ends.append(name)
            except UploadLockedError:
                ends.append("locked")

        threads = [threading.Thread(target=append, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ends.count("locked") == 1
        winner = next(name for name in ends if name != "locked")
        assert [each.key.endswith(winner) for each in uploads.parts(upload)] == [True]
        assert uploads.get(upload.id).received == 10
        uploads.delete(upload.id)
    assert stored_bytes(engine) == 0


def test_a_length_is_said_once(uploads):
    upload = uploads.begin(NewUpload("a.npz", None, standalone=True))
    uploads.append(upload.id, [part(upload, 0, 10)], 0)
    with pytest.raises(UploadOffsetError):
        uploads.set_size(upload.id, 9)
    uploads.set_size(upload.id, 30)
    uploads.set_size(upload.id, 30)
    with pytest.raises(UploadOffsetError):
        uploads.set_size(upload.id, 31)


def test_the_same_bytes_are_kept_once_and_freed_with_the_last(uploads, bring, engine):
    first, second = bring("a", A, 10, standalone=True), bring("b", A, 10, standalone=True)
    other = bring("c", B, 10, standalone=True)
    assert first.content == second.content != other.content
    assert stored_bytes(engine) == 20
    assert uploads.delete(first.id) == []
    assert uploads.finished(second.id).sha256 == A
    assert [freed.key for freed in uploads.delete(second.id)] == [f"uploads/{first.id}/0"]
    assert bring("d", A, 10, standalone=True).content not in (first.content, second.content)
    assert stored_bytes(engine) == 20


def test_another_tenant_shares_nothing_and_sees_nothing(uploads, others, bring, engine):
    mine = bring("a", A, 10)
    theirs = others.begin(NewUpload("a", 10, standalone=True))
    assert others.append(theirs.id, [part(theirs, 0, 10)], 0, A) == []
    assert others.finished(theirs.id).content == theirs.id
    assert (stored_bytes(engine), stored_bytes(engine, "others")) == (10, 10)
    for act in (others.get, others.finished, others.delete):
        with pytest.raises(UploadNotFoundError):
            act(mine.id)
    with pytest.raises(UploadNotFoundError):
        others.append(mine.id, [], 10)
    assert [upload.id for upload in others.page(limit=9, after=None)] == [theirs.id]


def test_bytes_are_shared_or_freed_never_both(uploads, bring, engine):
    """One upload is deleted while another with the same bytes is finished: what is finished has its bytes."""
    for number in range(8):
        old = bring("a", f"{number:064}", 10, standalone=True)
        new, barrier = uploads.begin(NewUpload("b", 10, standalone=True)), threading.Barrier(2)

        def finish(new=new, barrier=barrier, number=number):
            barrier.wait()
            uploads.append(new.id, [part(new, 0, 10)], 0, f"{number:064}")

        thread = threading.Thread(target=finish)
        thread.start()
        barrier.wait()
        freed = {file.key for file in uploads.delete(old.id)}
        thread.join()
        kept = {each.key for each in uploads.parts(uploads.finished(new.id))}
        assert len(kept) == 1
        assert not kept & freed
    assert stored_bytes(engine) == 80


def test_what_comes_counts_at_once_and_stops_at_the_quota(uploads, engine):
    change(engine, Tenant, DEFAULT_TENANT, max_bytes=25)
    upload = uploads.begin(NewUpload("a", 40, standalone=True))
    uploads.append(upload.id, [part(upload, 0, 20)], 0)
    with pytest.raises(StorageQuotaError) as error:
        uploads.append(upload.id, [part(upload, 20, 10)], 20)
    assert error.value.hint
    assert (uploads.get(upload.id).received, stored_bytes(engine)) == (20, 20)
    uploads.delete(upload.id)
    assert stored_bytes(engine) == 0


def test_an_upload_is_kept_for_a_job_that_has_not_ended(uploads, repository, bring, submit, engine, retention):
    upload = bring("d.npz", A, 20, standalone=True, keep_seconds=3600)
    job = submit(data_upload=upload.id).id
    with pytest.raises(UploadInUseError, match=job):
        uploads.delete(upload.id)
    change(engine, Upload, upload.id, expires_at=1.0)
    assert retention.expire_uploads() == []
    repository.request_cancel(job)
    assert [freed.size for freed in retention.expire_uploads()] == [20]
    with pytest.raises(UploadNotFoundError):
        uploads.get(upload.id)
    with pytest.raises(UploadNotFoundError):
        submit(data_upload=upload.id)
    assert repository.job(job).data_upload == upload.id, "the job that has ended says from what it started"
    repository.delete(job)
    with Session(engine) as session:
        assert session.get(Upload, upload.id) is None


def test_what_was_sent_for_itself_outlives_its_jobs(uploads, repository, bring, submit):
    upload = bring("d.npz", A, 20, standalone=True)
    job = submit(data_upload=upload.id)
    repository.request_cancel(job.id)
    assert [freed.size for freed in repository.delete(job.id)] == [10]
    assert uploads.finished(upload.id)
    with pytest.raises(UploadNotFoundError):
        uploads.get(job.checkpoint_upload)


def test_a_job_without_its_files_does_not_go_on(uploads, repository, leases, submit):
    job = submit()
    leases.fail(leases.claim("me", 30, ["cpu"]), {"code": "storage_full"}, {})
    uploads.delete(job.data_upload)
    with pytest.raises(WrongStateError, match="was deleted"):
        repository.resume(job.id)


def test_an_unfinished_upload_expires(uploads, retention, engine):
    upload = uploads.begin(NewUpload("a", 20, standalone=True))
    uploads.append(upload.id, [part(upload, 0, 10)], 0)
    assert retention.expire_uploads() == []
    change(engine, Upload, upload.id, expires_at=1.0)
    with pytest.raises(UploadNotFoundError):
        uploads.get(upload.id)
    with pytest.raises(UploadNotFoundError):
        uploads.append(upload.id, [part(upload, 10, 10)], 10)
    assert [freed.size for freed in retention.expire_uploads()] == [10]
    assert stored_bytes(engine) == 0
    with Session(engine) as session:
        assert not session.scalars(select(Part)).all()


def test_what_came_with_a_form_waits_an_hour_for_its_job(bring, submit, engine):
    upload = bring("c.pt", A, 10)
    assert 3000 < upload.expires_at - upload.finished_at <= 3601
    submit(checkpoint_upload=upload.id)
    with Session(engine) as session:
        assert session.get_one(Upload, upload.id).expires_at is None
    kept = bring("d.npz", B, 10, standalone=True, keep_seconds=60)
    assert 59 < kept.expires_at - kept.finished_at < 61


def test_jobs_expire_after_their_end(repository, submit, retention, engine):
    ids = {keep: submit(keep_seconds=keep).id for keep in (None, 100, 10_000)}
    assert retention.expired_jobs(1) == []
    for job in ids.values():
        repository.request_cancel(job)
        change(engine, Job, job, finished_at=Job.finished_at - 1000)
    assert retention.expired_jobs(None) == [(DEFAULT_TENANT, ids[100])]
    assert {job for _, job in retention.expired_jobs(500)} == {ids[100], ids[None]}


def test_one_at_a_time_reads_everything_again(uploads, engine):
    upload = uploads.begin(NewUpload("a", 20, standalone=True))
    uploads.claim_hashing(upload.id, 0, "me")
    uploads.claim_hashing(upload.id, 0, "me")
    with pytest.raises(UploadLockedError):
        uploads.claim_hashing(upload.id, 0, "you")
    change(engine, Upload, upload.id, hashing_until=1.0)
    uploads.claim_hashing(upload.id, 0, "you")


def test_no_upload_comes_in_endless_pieces(uploads):
    upload = uploads.begin(NewUpload("a", None, standalone=True))
    uploads.append(upload.id, [part(upload, offset, 1) for offset in range(10_000)], 0)
    with pytest.raises(JobsError, match="10000 pieces"):
        uploads.append(upload.id, [part(upload, 10_000, 1)], 10_000)
