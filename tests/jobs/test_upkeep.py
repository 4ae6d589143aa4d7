"""Duties, workers, files without a row, and the outbox."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from jobs.leases import Claim
from jobs.states import State
from jobs.storage import Stored
from jobs.upkeep import RETRY_SECONDS
from jobs.uploads import NewUpload
from tests.jobs.report import FILE, REPORT

CPU = ["cpu"]


def test_a_duty_has_one_owner_at_a_time(upkeep, pass_time):
    assert upkeep.take_duty("reconcile", "a", 30)
    assert not upkeep.take_duty("reconcile", "b", 30)
    assert upkeep.take_duty("reconcile", "a", 30), "its owner keeps it"
    pass_time(31)
    assert upkeep.take_duty("reconcile", "b", 30)
    assert not upkeep.take_duty("reconcile", "a", 30)
    assert upkeep.take_duty("another", "a", 30)


def test_ten_at_once_take_a_new_duty_once(upkeep):
    barrier, taken = threading.Barrier(10), []

    def take(name):
        barrier.wait()
        if upkeep.take_duty("reconcile", name, 30):
            taken.append(name)

    threads = [threading.Thread(target=take, args=(str(n),)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


def test_a_running_lease_is_not_taken_back(repository, leases, upkeep, submit):
    job = submit().id
    leases.claim("me", 30, CPU)
    assert upkeep.take_back() == []
    assert repository.job(job).state == State.RUNNING


def test_ten_at_once_take_a_job_back_once(repository, leases, upkeep, submit, pass_time):
    job = submit().id
    leases.claim("me", 30, CPU)
    pass_time(31)
    results, threads = [], []
    for _ in range(10):
        threads.append(threading.Thread(target=lambda: results.extend(upkeep.take_back())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(job, State.QUEUED)]
    lost = [event for event in repository.events(job, after=0, limit=99) if event.type == "lost"]
    assert len(lost) == 1


def test_who_waits_and_who_is_there(leases, upkeep, submit, pass_time):
    jobs = [submit(queue=queue).id for queue in ("cpu", "gpu", "cpu")]
    assert upkeep.waiting() == {"cpu": [jobs[0], jobs[2]], "gpu": [jobs[1]]}
    leases.claim("me", 30, CPU)
    assert upkeep.waiting() == {"cpu": [jobs[2]], "gpu": [jobs[1]]}
    assert upkeep.counts() == {("cpu", "queued"): 1, ("cpu", "running"): 1, ("gpu", "queued"): 1}
    upkeep.seen("w1", ["cpu", "gpu"])
    upkeep.seen("w1", ["cpu", "gpu"])
    assert upkeep.workers(60) == {"w1": ["cpu", "gpu"]}
    pass_time(70)
    assert upkeep.workers(60) == {}
    upkeep.gone("w1")
    assert upkeep.workers(60) == {}
    upkeep.seen("r1", [])
    assert upkeep.workers(60) == {"r1": []}, "a reconciler serves no queue"
    assert upkeep.numbers().workers == {}


def test_files_without_a_row(leases, upkeep, submit, uploads):
    checkpoint = submit().checkpoint_upload
    coming = uploads.begin(NewUpload("d.npz", None, standalone=True)).id
    claim = leases.claim("me", 30, CPU)
    leases.add_state(claim, "training.pt", Stored("jobs/a/state/1", "0" * 64, 1), epoch=1, step=0)
    known = [f"uploads/{checkpoint}/0", f"uploads/{coming}/part-without-a-row-yet", "jobs/a/state/1"]
    lost = ["jobs/a/state/0", "uploads/x", "uploads/up_x/0", f"uploads/{checkpoint}/1"]
    assert upkeep.orphans([*known, *lost]) == lost
    assert upkeep.orphans([f"k{n}" for n in range(1234)] + known) == [f"k{n}" for n in range(1234)]


ENDS = {
    "succeeded": lambda repository, leases, claim: leases.succeed(claim, REPORT, {}, {}),
    "failed": lambda repository, leases, claim: leases.fail(claim, {"code": "x", "detail": "y"}, {"c.pt": FILE}),
    "cancelled": lambda repository, leases, claim: leases.cancelled(claim),
    "paused": lambda repository, leases, claim: (
        repository.request_pause(claim.job_id), leases.release(claim, charged=False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", ENDS)
def test_every_end_and_pause_is_told_once(repository, leases, upkeep, submit, state):
    job = submit(name="mine").id
    ENDS[state](repository, leases, leases.claim("me", 30, CPU))
    message, *others = upkeep.due(10)
    assert not others
    assert message.body["type"] == f"job.{state}"
    assert (message.body["data"]["id"], message.body["data"]["name"]) == (job, "mine")
    assert bool(message.body["data"]["failure"]) == (state == "failed")
    assert abs(message.now - message.created_at) < 5
    upkeep.delivered(message)
    assert upkeep.due(10) == []


def test_a_webhook_that_does_not_arrive_is_sent_again_later_and_given_up_in_the_end(repository, upkeep, submit, engine):
    repository.request_cancel(submit().id)
    for tries in range(len(RETRY_SECONDS) + 1):
        message = upkeep.due(10)[0]
        assert message.tries == tries
        upkeep.not_delivered(message, "503")
        assert upkeep.due(10) == []
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET due_at = 0"))
    assert upkeep.due(10) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT error FROM outbox WHERE given_up_at IS NOT NULL")).scalar() == "503"


def test_a_slow_sender_does_not_undo_what_another_one_settled(repository, upkeep, submit):
    repository.request_cancel(submit().id)
    first = upkeep.due(10)[0]
    second = upkeep.due(10)[0]
    upkeep.delivered(first)
    upkeep.not_delivered(second, "timeout")
    assert upkeep.due(10) == []


def test_messages_that_were_settled_long_ago_are_forgotten(engine, repository, leases, upkeep, submit):
    for _ in range(3):
        job = submit().id
        leases.claim("me", 30, CPU)
        leases.cancelled(Claim(job, 1))
    delivered, given_up, _ = upkeep.due(10)
    upkeep.delivered(delivered)
    upkeep.not_delivered(given_up, "gone", for_good=True)
    upkeep.forget_sent()
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM outbox")) == 3
        connection.execute(text("UPDATE outbox SET delivered_at = delivered_at - 7e5, given_up_at = given_up_at - 7e5"))
    upkeep.forget_sent()
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM outbox")) == 1, "the one that is due is kept"


def test_numbers_of_what_runs(leases, upkeep, submit):
    for speed in (100.0, 300.0):
        job = submit().id
        claim = leases.claim("me", 30, CPU)
        told = {"epoch": 1, "epoch_seconds": 1000 / speed, "images_per_second": speed, "gpu_memory_bytes": 5}
        leases.set_progress(Claim(job, claim.attempt), told)
    upkeep.seen("a", ["cpu", "gpu"])
    upkeep.seen("b", ["gpu"])
    numbers = upkeep.numbers()
    assert (numbers.images_per_second, numbers.gpu_memory) == (400, 10)
    assert numbers.epoch_seconds == pytest.approx((10 + 10 / 3) / 2)
    assert numbers.workers == {"cpu": 1, "gpu": 2}
