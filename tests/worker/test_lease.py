"""A lease lives as long as its keeper, however long a copy takes, and its loss is noticed."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from jobs.leases import LeaseRepository, Orders
from jobs.repository import JobRepository, NewJob
from jobs.tables import DEFAULT_TENANT
from jobs.upkeep import Upkeep
from worker.lease import LeaseKeeper

CPU = ["cpu"]


@pytest.fixture
def leases(engine):
    return LeaseRepository(engine)


@pytest.fixture
def job(engine):
    new = NewJob({"data": {}}, "cpu", "aft", None, {}, 1, None, None)
    return JobRepository(engine, DEFAULT_TENANT).create(new).id


def keeping(leases, claim, seconds, stop_child, renewed=lambda _: None):
    return LeaseKeeper(leases, claim, seconds, asked=time.monotonic(), stop_child=stop_child, renewed=renewed)


def test_a_long_copy_does_not_lose_the_job(engine, leases, job, pass_time):
    claim, renewals = leases.claim("me", 30, CPU), queue.SimpleQueue()
    with keeping(leases, claim, 30, lambda: None, renewals.put) as keeper:
        for _ in range(4):  # two of them within a lease: one that is under way meanwhile may be of before
            pass_time(13)
            renewals.get(timeout=60)
        assert Upkeep(engine).take_back() == []
    assert not keeper.lost
    pass_time(60)
    assert Upkeep(engine).take_back() == [(job, "queued")], "the keeper stopped with its block"


def test_a_lost_lease_is_noticed_and_the_child_killed(engine, leases, job, pass_time):
    claim = leases.claim("me", 30, CPU)
    pass_time(31)
    Upkeep(engine).take_back()
    assert leases.claim("other", 30, CPU).attempt == 2
    killed = threading.Event()
    with keeping(leases, claim, 30, killed.set) as keeper:
        assert killed.wait(5)
    assert keeper.lost


def test_the_wish_to_cancel_kills_the_child_at_once_and_keeps_the_lease(engine, leases, job):
    claim = leases.claim("me", 30, CPU)
    killed = threading.Event()
    with keeping(leases, claim, 30, killed.set) as keeper:
        JobRepository(engine, DEFAULT_TENANT).request_cancel(job)
        assert killed.wait(5)
    assert keeper.orders.cancel
    assert not keeper.lost
    leases.cancelled(claim)


def test_a_database_that_hangs_does_not_stop_the_clock(leases, job):
    """The thread that asks hangs for longer than the lease; the other one kills the child in time."""
    claim = leases.claim("me", 0.5, CPU)
    killed, hangs = threading.Event(), threading.Event()

    class Hanging:
        def renew(self, *_):
            hangs.wait(20)
            return Orders(cancel=False, pause=False)

    started = time.monotonic()
    with LeaseKeeper(
        Hanging(), claim, 0.5, asked=time.monotonic(), renewed=lambda _: None, stop_child=killed.set
    ) as keeper:
        assert killed.wait(5)
        assert time.monotonic() - started > 0.4
        assert keeper.lost
    hangs.set()


def test_each_renewal_tells_a_deadline_that_lies_before_the_end_of_the_lease(engine, leases, job):
    claim, renewals = leases.claim("me", 30, CPU), queue.SimpleQueue()
    began = time.monotonic()
    with keeping(leases, claim, 30, lambda: None, renewals.put) as keeper:
        assert began < keeper.deadline < began + 30
        told = [keeper.deadline, renewals.get(timeout=60), renewals.get(timeout=60)]
        assert told == sorted(told)
        assert told[-1] < time.monotonic() + 30
