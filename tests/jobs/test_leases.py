"""The promises to workers: one owner at a time, stale owners cannot write, what is lost waits again."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import select, text

from jobs.database import AWAY, open_database
from jobs.errors import LeaseLostError
from jobs.leases import LeaseRepository, Orders
from jobs.repository import JobRepository, NewJob
from jobs.session import MAX_STALLED
from jobs.states import State
from jobs.storage import Stored
from jobs.tables import DEFAULT_TENANT
from jobs.upkeep import Upkeep
from tests.jobs.report import FILE, REPORT

CPU = ["cpu"]


@pytest.fixture
def lose(leases, upkeep, pass_time):
    """An attempt that is silent until its lease has run out."""

    def lose():
        claim = leases.claim("me", 30, CPU)
        pass_time(31)
        return claim, upkeep.take_back()

    return lose


def test_the_oldest_waiting_job_is_claimed_first(repository, leases, submit):
    jobs = [submit().id for _ in range(3)]
    assert [repository.queue_position(repository.job(job)) for job in jobs] == [1, 2, 3]
    claims = [leases.claim("me", 30, CPU) for _ in range(4)]
    assert [claim.job_id for claim in claims[:3]] == jobs
    assert [claim.attempt for claim in claims[:3]] == [1, 1, 1]
    assert claims[3] is None


def test_only_jobs_of_the_queues_that_were_asked_for(repository, leases, submit):
    gpu, cpu = submit(queue="gpu").id, submit().id
    assert repository.queue_position(repository.job(cpu)) == 1, "of its own queue"
    assert leases.claim("me", 30, ["gpu-large"]) is None
    assert leases.claim("me", 30, CPU).job_id == cpu
    assert leases.claim("me", 30, ["cpu", "gpu"]).job_id == gpu


def test_twenty_claimers_at_once_get_every_job_once(leases, submit):
    jobs = {submit().id for _ in range(30)}
    claims, barrier = [], threading.Barrier(20)

    def work():
        barrier.wait()
        empty = 0
        while empty < 3:  # None also means: another one was faster
            claim = leases.claim("me", 30, CPU)
            empty = empty + 1 if claim is None else 0
            if claim:
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
    "log": lambda r, c: r.add_log(c, "a line\n"),
    "state": lambda r, c: r.add_state(c, "training.pt", FILE, epoch=1, step=0),
    "release": lambda r, c: r.release(c, charged=True, lost="it died"),
    "succeed": lambda r, c: r.succeed(c, REPORT, {"checkpoint.pt": FILE}, {}),
    "fail": lambda r, c: r.fail(c, {"code": "x"}, {}),
    "cancelled": lambda r, c: r.cancelled(c),
}
TABLES = ("jobs", "events", "epochs", "logs", "artifacts", "results", "outbox")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_stale_attempt_cannot_write(write, leases, submit, engine, lose):
    job = submit().id
    stale, _ = lose()
    current = leases.claim("new", 30, CPU)
    assert (current.job_id, current.attempt) == (job, 2)

    def dump():
        with engine.connect() as connection:
            return [connection.execute(text(f"SELECT * FROM {t}")).all() for t in TABLES]

    before = dump()
    with pytest.raises(LeaseLostError):
        write(leases, stale)
    assert dump() == before
    write(leases, current)
    assert dump() != before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_an_expired_lease_cannot_write_even_if_nobody_took_over(write, leases, submit, pass_time):
    submit()
    claim = leases.claim("me", 30, CPU)
    pass_time(31)
    with pytest.raises(LeaseLostError):
        write(leases, claim)


def test_renewing_keeps_the_job_and_tells_what_its_user_wants(repository, leases, upkeep, submit, pass_time):
    job = submit().id
    claim = leases.claim("me", 30, CPU)
    for _ in range(4):
        pass_time(20)
        assert leases.renew(claim, 30) == Orders(cancel=False, pause=False)
        assert upkeep.take_back() == []
    repository.request_pause(job)
    assert leases.renew(claim, 30) == Orders(cancel=False, pause=True)
    repository.request_cancel(job)
    assert leases.renew(claim, 30).cancel


def test_the_time_of_all_attempts_counts_and_that_between_them_does_not(repository, leases, submit, pass_time):
    job = submit(max_seconds=2000).id
    for _ in range(2):
        claim = leases.claim("me", 3000, CPU)
        pass_time(700)
        assert not leases.renew(claim, 30).time_is_up
        repository.request_pause(job)
        leases.release(claim, charged=False)
        pass_time(700)
        repository.resume(job)
    claim = leases.claim("me", 3000, CPU)
    pass_time(700)
    assert leases.renew(claim, 30).time_is_up
    submit()
    assert not leases.renew(leases.claim("me", 30, CPU), 30).time_is_up, "without a limit there is no end"


def test_three_attempts_without_progress_are_poison_with_the_tail_of_the_log(
    repository, leases, submit, lose, pass_time
):
    job = submit().id
    for _ in range(MAX_STALLED - 1):
        assert lose()[1] == [(job, State.QUEUED)]
    claim = leases.claim("me", 30, CPU)
    leases.add_log(claim, "".join(f"line {n}\n" for n in range(9)))
    pass_time(31)
    assert lose()[1] == [(job, State.FAILED)]
    ended = repository.job(job)
    assert (ended.attempt, ended.failure["code"], ended.owner) == (MAX_STALLED, "poison", None)
    assert ended.failure["log"] == [f"line {n}" for n in range(4, 9)]
    assert "worker me was silent" in ended.failure["detail"]
    assert ended.finished_at
    assert [event.type for event in repository.events(job, after=0, limit=99)][-1] == "failure"
    assert leases.claim("me", 30, CPU) is None


def test_progress_clears_the_count_but_only_new_progress(repository, leases, upkeep, submit, lose, pass_time):
    job = submit().id
    for epoch, step in ((1, 0), (1, 50), (2, 0)):
        for _ in range(MAX_STALLED - 1):
            lose()
        claim = leases.claim("me", 30, CPU)
        leases.add_state(claim, "training.pt", FILE, epoch=epoch, step=step)
        pass_time(31)
        assert upkeep.take_back() == [(job, State.QUEUED)]
    for _ in range(MAX_STALLED):
        claim = leases.claim("me", 30, CPU)
        leases.add_state(claim, "training.pt", FILE, epoch=2, step=0)  # as far as before, no further
        pass_time(31)
        upkeep.take_back()
    assert repository.job(job).failure["code"] == "poison"


def test_a_drained_attempt_is_not_charged(leases, submit):
    submit()
    for attempt in range(1, 8):
        claim = leases.claim("me", 30, CPU)
        assert claim.attempt == attempt
        assert leases.release(claim, charged=False) == State.QUEUED


def test_success_is_one_transaction(repository, leases, submit, engine):
    job = submit().id
    claim = leases.claim("me", 30, CPU)
    leases.succeed(claim, REPORT, {"checkpoint.pt": FILE}, {"fraction": 1.0})
    ended, report = repository.report(job)
    assert (ended.state, ended.owner, ended.lease_until) == (State.SUCCEEDED, None, None)
    assert report == REPORT
    side = {name: REPORT["after"][name] for name in ("clean", "robust")}
    assert ended.outcome == {"verdict": "unverified", "before": side, "after": side}
    assert repository.artifacts(job, "output")["checkpoint.pt"].sha256 == FILE.sha256
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT side, attack, eps, correct FROM results ORDER BY side DESC, position")
        ).all()
    assert rows[:3] == [("before", "clean", None, 9), ("before", "pgd", 0.1, 5), ("before", "robust", None, 5)]
    with pytest.raises(LeaseLostError):
        leases.fail(claim, {}, {})


def test_an_epoch_may_run_twice_but_counts_once(leases, submit, engine):
    submit()
    claim = leases.claim("me", 30, CPU)
    for _ in range(2):
        leases.add_event(claim, "epoch", {"epoch": 1})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM epochs")).scalar() == 1


def test_a_newer_state_names_the_one_it_replaces(leases, submit):
    submit()
    claim = leases.claim("me", 30, CPU)
    assert leases.add_state(claim, "training.pt", FILE, epoch=1, step=0) is None
    newer = Stored("other", "3" * 64, 5)
    assert leases.add_state(claim, "training.pt", newer, epoch=2, step=0) == FILE


def test_the_log_comes_back_in_order(repository, leases, submit):
    job = submit().id
    claim = leases.claim("me", 30, CPU)
    for n in range(3):
        leases.add_log(claim, f"{n}\n")
    chunks = repository.log(job)
    assert "".join(chunk.text for chunk in chunks) == "0\n1\n2\n"
    assert [chunk.text for chunk in repository.log(job, after=chunks[1].id)] == ["2\n"]


def test_the_time_of_the_last_attempt_counts_too(repository, leases, submit, pass_time):
    """A job that no room was left for goes on with what is left of its time."""
    job = submit(max_seconds=100).id
    claim = leases.claim("me", 30, ["cpu"])
    pass_time(20)
    leases.fail(claim, {"code": "storage_full"}, {}, keep_state=True)
    assert repository.resume(job).used_seconds >= 20


def test_a_process_that_stops_in_the_middle_of_a_write_keeps_nobody_waiting(postgres_url):
    """It holds the lock of the row; the database hangs up on it, and the job goes on."""
    engine = open_database(postgres_url)
    leases, upkeep = LeaseRepository(engine), Upkeep(engine)
    job = JobRepository(engine, DEFAULT_TENANT).create(NewJob({"data": {}}, "cpu", "aft", None, {}, 1, None, None)).id
    claim = leases.claim("me", 0.5, ["cpu"])
    with pytest.raises(AWAY), leases._guarded(claim) as session:
        deadline = time.monotonic() + 20
        while not (taken := upkeep.take_back()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert taken == [(job, "queued")]
        session.execute(select(1))
    engine.dispose()
