"""The promises of the repository: one owner at a time, stale owners cannot write, nothing is lost."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from sqlalchemy import text

from jobs.errors import JobNotFoundError, LeaseLostError, WrongStateError
from jobs.repository import MAX_STALLED
from jobs.states import FINAL, MOVES, State
from jobs.storage import Stored

REPORT = {
    side: {
        "clean": {"correct": 9, "total": 10},
        "attacks": [{"name": "pgd", "threat": {"norm": "linf", "eps": 0.1}, "correct": 5, "total": 10}],
        "robust": {"correct": 5, "total": 10},
    }
    for side in ("before", "after")
}
FILE = Stored("jobs/x/1/checkpoint.pt", "2" * 64, 30)


def test_the_oldest_waiting_job_is_claimed_first(repository, submit):
    jobs = [submit().id for _ in range(3)]
    assert [repository.queue_position(repository.job(job)) for job in jobs] == [1, 2, 3]
    claims = [repository.claim("me", 30) for _ in range(4)]
    assert [claim.job_id for claim in claims[:3]] == jobs
    assert [claim.attempt for claim in claims[:3]] == [1, 1, 1]
    assert claims[3] is None


def test_twenty_claimers_at_once_get_every_job_once(repository, submit):
    jobs = {submit().id for _ in range(30)}
    claims, barrier = [], threading.Barrier(20)

    def work():
        barrier.wait()
        while claim := repository.claim("me", 30):
            claims.append(claim.job_id)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == sorted(jobs)


WRITES = {
    "renew": lambda r, c: r.renew(c, 30),
    "progress": lambda r, c: r.set_progress(c, {"fraction": 1}),
    "event": lambda r, c: r.add_event(c, "phase", {"phase": "training"}),
    "epoch": lambda r, c: r.add_event(c, "epoch", {"epoch": 1}),
    "state": lambda r, c: r.add_state(c, "training.pt", FILE, epoch=1, step=0),
    "release": lambda r, c: r.release(c, charged=True),
    "succeed": lambda r, c: r.succeed(c, REPORT, {"checkpoint.pt": FILE}, {}),
    "fail": lambda r, c: r.fail(c, {"code": "x"}, {}),
    "cancelled": lambda r, c: r.cancelled(c),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_stale_attempt_cannot_write(write, repository, submit, engine):
    job = submit().id
    stale = repository.claim("old", 0.05)
    time.sleep(0.1)
    current = repository.claim("new", 30)
    assert (current.job_id, current.attempt) == (job, 2)

    def dump():
        with engine.connect() as connection:
            return [
                connection.execute(text(f"SELECT * FROM {t}")).all()
                for t in ("jobs", "events", "epochs", "artifacts", "results")
            ]

    before = dump()
    with pytest.raises(LeaseLostError):
        write(repository, stale)
    assert dump() == before
    write(repository, current)
    assert dump() != before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_an_expired_lease_cannot_write_even_if_nobody_took_over(write, repository, submit):
    submit()
    claim = repository.claim("me", 0.05)
    time.sleep(0.1)
    with pytest.raises(LeaseLostError):
        write(repository, claim)


def test_renewing_keeps_the_job(repository, submit):
    submit()
    claim = repository.claim("me", 0.3)
    for _ in range(4):
        time.sleep(0.15)
        repository.renew(claim, 0.3)
        assert repository.claim("other", 30) is None


def lose(repository):
    claim = repository.claim("me", 0.01)
    time.sleep(0.02)
    return claim


def test_three_attempts_without_progress_are_poison(repository, submit):
    job = submit().id
    for attempt in range(1, MAX_STALLED + 1):
        assert lose(repository).attempt == attempt
    assert repository.claim("me", 30) is None
    ended = repository.job(job)
    assert ended.state == State.FAILED
    assert ended.failure["code"] == "poison"
    assert ended.finished_at
    assert [event.type for event in repository.events(job, after=0, limit=99)][-1] == "failure"


def test_progress_clears_the_count_but_only_new_progress(repository, submit):
    job = submit().id
    for epoch, step in ((1, 0), (1, 50), (2, 0)):
        lose(repository)
        lose(repository)
        claim = repository.claim("me", 0.2)
        repository.add_state(claim, "training.pt", FILE, epoch=epoch, step=step)
        time.sleep(0.25)
    for _ in range(MAX_STALLED):
        claim = repository.claim("me", 0.2)
        repository.add_state(claim, "training.pt", FILE, epoch=2, step=0)  # as far as before, no further
        time.sleep(0.25)
    assert repository.claim("me", 30) is None
    assert repository.job(job).failure["code"] == "poison"


def test_a_drained_attempt_is_not_charged(repository, submit):
    submit()
    for attempt in range(1, 8):
        claim = repository.claim("me", 30)
        assert claim.attempt == attempt
        repository.release(claim, charged=False)


def test_success_is_one_transaction(repository, submit, engine):
    job = submit().id
    claim = repository.claim("me", 30)
    repository.succeed(claim, REPORT, {"checkpoint.pt": FILE}, {"fraction": 1.0})
    ended, report = repository.report(job)
    assert (ended.state, ended.owner, ended.lease_until) == (State.SUCCEEDED, None, None)
    assert report == REPORT
    assert repository.artifacts(job, "output")["checkpoint.pt"].sha256 == FILE.sha256
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT side, attack, eps, correct FROM results ORDER BY side DESC, position")
        ).all()
    assert rows[:3] == [("before", "clean", None, 9), ("before", "pgd", 0.1, 5), ("before", "robust", None, 5)]
    with pytest.raises(LeaseLostError):
        repository.fail(claim, {}, {})


def test_an_epoch_may_run_twice_but_counts_once(repository, submit, engine):
    submit()
    claim = repository.claim("me", 30)
    for _ in range(2):
        repository.add_event(claim, "epoch", {"epoch": 1})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM epochs")).scalar() == 1


def test_a_newer_state_names_the_one_it_replaces(repository, submit):
    submit()
    claim = repository.claim("me", 30)
    assert repository.add_state(claim, "training.pt", FILE, epoch=1, step=0) is None
    newer = Stored("other", "3" * 64, 5)
    assert repository.add_state(claim, "training.pt", newer, epoch=2, step=0) == FILE


def test_cancel_in_every_state(repository, submit):
    queued = submit().id
    assert repository.request_cancel(queued).state == State.CANCELLED
    assert repository.request_cancel(queued).state == State.CANCELLED
    running = submit().id
    claim = repository.claim("me", 30)
    assert claim.job_id == running, "a cancelled job is not claimed"
    asked = repository.request_cancel(running)
    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert repository.cancel_requested(claim)
    repository.cancelled(claim)
    assert repository.job(running).state == State.CANCELLED
    done = submit().id
    repository.succeed(repository.claim("me", 30), REPORT, {}, {})
    with pytest.raises(WrongStateError, match="succeeded already"):
        repository.request_cancel(done)
    with pytest.raises(JobNotFoundError):
        repository.request_cancel("job_x")


def test_a_job_whose_owner_died_before_it_cancelled_is_cancelled_by_the_next(repository, submit):
    job = submit().id
    lose(repository)
    repository.request_cancel(job)
    assert repository.claim("me", 30) is None
    assert repository.job(job).state == State.CANCELLED


def test_delete_frees_files_but_not_uploads_that_others_use(repository, submit):
    first, second = submit().id, submit().id
    with pytest.raises(WrongStateError, match="is queued"):
        repository.delete(first)
    repository.succeed(repository.claim("me", 30), REPORT, {"checkpoint.pt": FILE}, {})
    assert repository.delete(first) == [FILE]
    with pytest.raises(JobNotFoundError):
        repository.job(first)
    repository.request_cancel(second)
    assert sorted(stored.key for stored in repository.delete(second)) == ["uploads/up_c", "uploads/up_d"]


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


def test_only_the_tables_moves_are_possible():
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED} == FINAL
    for source, target in itertools.product(State, State):
        if source in FINAL:
            assert target not in MOVES[source]
