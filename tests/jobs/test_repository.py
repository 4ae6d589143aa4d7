"""The promises to users: whatever they ask of a job in whatever state, it ends as they were told."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm.exc import DetachedInstanceError

from jobs.errors import JobNotFoundError, JobsError, UploadNotFoundError, WrongStateError
from jobs.leases import Claim
from jobs.states import FINAL, MOVES, State
from jobs.storage import Stored
from tests.jobs.report import FILE, REPORT

CPU = ["cpu"]


def states(repository, job):
    return [event.data.get("state", event.type) for event in repository.events(job, after=0, limit=99)]


def test_cancel_in_every_state(repository, leases, submit):
    queued = submit().id
    assert repository.request_cancel(queued).state == State.CANCELLED
    assert repository.request_cancel(queued).state == State.CANCELLED
    running = submit().id
    claim = leases.claim("me", 30, CPU)
    assert claim.job_id == running, "a cancelled job is not claimed"
    for _ in range(2):
        asked = repository.request_cancel(running)
        assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    leases.cancelled(claim)
    assert repository.request_cancel(running).state == State.CANCELLED
    done = submit().id
    leases.succeed(leases.claim("me", 30, CPU), REPORT, {}, {})
    with pytest.raises(WrongStateError, match="succeeded already"):
        repository.request_cancel(done)
    with pytest.raises(JobNotFoundError):
        repository.request_cancel("job_x")


@pytest.mark.parametrize("asked", ["request_cancel", "request_pause"])
def test_what_was_asked_while_the_owner_died_is_done_when_its_lease_ends(
    repository, leases, upkeep, submit, asked, pass_time
):
    job = submit().id
    leases.claim("me", 30, CPU)
    getattr(repository, asked)(job)
    pass_time(31)
    expected = State.CANCELLED if asked == "request_cancel" else State.PAUSED
    assert upkeep.take_back() == [(job, expected)]
    assert leases.claim("me", 30, CPU) is None


def test_pause_and_resume(repository, leases, submit):
    job = submit().id
    with pytest.raises(WrongStateError, match="only a running job"):
        repository.request_pause(job)
    claim = leases.claim("me", 30, CPU)
    assert repository.request_pause(job).state == State.RUNNING
    assert leases.release(claim, charged=False) == State.PAUSED
    assert repository.request_pause(job).state == State.PAUSED, "twice"
    assert leases.claim("me", 30, CPU) is None
    assert repository.resume(job).state == State.QUEUED
    assert repository.resume(job).state == State.QUEUED, "twice"
    again = leases.claim("me", 30, CPU)
    assert again.attempt == 2
    assert not leases.renew(again, 30).pause, "resumed is resumed"
    repository.request_pause(job)
    assert repository.resume(job).state == State.RUNNING
    assert not leases.renew(again, 30).pause, "it changed its mind before the worker heard of it"
    repository.request_pause(job)
    leases.release(again, charged=False)
    assert repository.request_cancel(job).state == State.CANCELLED
    with pytest.raises(WrongStateError, match="only a paused job"):
        repository.resume(job)
    assert states(repository, job) == ["queued", "running", "paused", "queued", "running", "paused", "cancelled"]


def test_a_job_ends_once_whoever_is_faster(repository, leases, submit):
    """Cancelling races the end: the user gets one of the two, and it stays."""
    for _ in range(5):
        job = submit().id
        claim = leases.claim("me", 30, CPU)
        barrier, refused = threading.Barrier(2), []

        def cancel(job=job, barrier=barrier, refused=refused):
            barrier.wait()
            try:
                repository.request_cancel(job)
            except WrongStateError as error:
                refused.append(error)

        thread = threading.Thread(target=cancel)
        thread.start()
        barrier.wait()
        leases.succeed(claim, REPORT, {}, {})
        thread.join()
        assert repository.job(job).state == State.SUCCEEDED
        assert states(repository, job) == ["queued", "running", "succeeded"]


def test_delete_frees_files_but_not_uploads_that_others_use(repository, leases, submit):
    first, second = submit().id, submit().id
    with pytest.raises(WrongStateError, match="is queued"):
        repository.delete(first)
    leases.succeed(leases.claim("me", 30, CPU), REPORT, {"checkpoint.pt": FILE}, {})
    assert repository.delete(first) == [FILE]
    with pytest.raises(JobNotFoundError):
        repository.job(first)
    repository.request_cancel(second)
    checkpoint, data = repository.job(second).checkpoint_upload, repository.job(second).data_upload
    freed = {stored.key: stored.size for stored in repository.delete(second)}
    assert freed == {f"uploads/{checkpoint}/0": 10, f"uploads/{data}/0": 20}


def test_an_upload_is_not_freed_under_a_job_that_is_being_made_of_it(repository, submit):
    """Either the new job is refused, or the upload stays."""
    for _ in range(10):
        try:
            old = submit().id
        except UploadNotFoundError:
            return  # the deletion was faster before
        repository.request_cancel(old)
        barrier, made = threading.Barrier(2), []

        def create(barrier=barrier, made=made):
            barrier.wait()
            try:
                made.append(submit().id)
            except JobsError as error:
                made.append(error)

        thread = threading.Thread(target=create)
        thread.start()
        barrier.wait()
        freed = repository.delete(old)
        thread.join()
        assert isinstance(made[0], UploadNotFoundError) == bool(freed)


def test_pages_are_complete_and_do_not_overlap(repository, submit):
    jobs = [submit(defense="dra" if n % 2 else "aft").id for n in range(7)]
    seen, after = [], None
    while page := repository.page(state=None, defense=None, limit=3, after=after):
        seen += [job.id for job in page]
        after = (page[-1].created_at, page[-1].id)
    assert seen == jobs[::-1]
    assert len(repository.page(state=None, defense="dra", limit=9, after=None)) == 3
    assert len(repository.page(state="queued", defense=None, limit=9, after=None)) == 7
    assert repository.page(state="failed", defense=None, limit=9, after=None) == []
    listed = repository.page(state=None, defense=None, limit=1, after=None, specs=False)[0]
    with pytest.raises(DetachedInstanceError):  # not read
        _ = listed.spec


def test_only_the_tables_moves_are_possible():
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED} == FINAL
    for source, target in itertools.product(State, State):
        if source in FINAL:
            assert target not in MOVES[source] or (source, target) == (State.FAILED, State.QUEUED)


def test_only_a_failure_for_want_of_room_can_be_resumed(repository, leases, submit):
    for code in ("diverged", "storage_full"):
        job = submit().id
        claim = leases.claim("me", 30, ["cpu"])
        repository.request_pause(job)
        repository.request_cancel(job)
        leases.fail(claim, {"code": code, "blame": "system", "detail": "", "hint": ""}, {}, keep_state=True)
        if code == "diverged":
            with pytest.raises(WrongStateError, match="only a paused job"):
                repository.resume(job)
            continue
        resumed = repository.resume(job)
        assert (resumed.state, resumed.failure, resumed.finished_at, resumed.stalled) == ("queued", None, None, 0)
        assert not resumed.pause_requested
        assert not resumed.cancel_requested, "what was wished before is over"
        assert states(repository, job)[-1] == "queued"


def test_sums_that_grow_outlive_their_jobs(repository, leases, upkeep, submit):
    job = submit().id
    claim = leases.claim("me", 30, ["cpu"])
    leases.release(claim, charged=True, lost="it died")
    repository.request_cancel(job)
    before = upkeep.numbers()
    assert (before.started, before.lost) == (1, 1)
    repository.delete(job)
    after = upkeep.numbers()
    assert (after.started, after.lost) == (1, 1)
    assert after.waited == pytest.approx(before.waited)


def test_deletions_at_the_same_moment_all_count(repository, leases, upkeep, submit):
    jobs = [submit().id for _ in range(8)]
    for job in jobs:
        leases.claim("me", 30, ["cpu"])
        leases.cancelled(Claim(job, 1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(repository.delete, jobs))
    assert upkeep.numbers().started == 8


@pytest.mark.parametrize("wish", ["drain", "pause"])
def test_a_cancelled_job_keeps_no_training_state(wish, repository, leases, submit):
    job = submit().id
    claim = leases.claim("me", 30, ["cpu"])
    leases.add_state(claim, "training.pt", Stored("jobs/s", "0" * 64, 1), epoch=1, step=0)
    if wish == "pause":
        repository.request_pause(job)
    leases.release(claim, charged=False)
    assert repository.job(job).state == ("queued" if wish == "drain" else "paused")
    assert repository.artifacts(job, "state")
    assert repository.request_cancel(job).state == "cancelled"
    assert repository.artifacts(job, "state") == {}
