"""Of many reconcilers one acts."""

from __future__ import annotations

import pytest

from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.settings import Settings
from jobs.tables import DEFAULT_TENANT
from jobs.upkeep import Upkeep
from worker.reconciler import Reconciler
from worker.webhooks import Webhooks

LEASE = 30


class Bell:
    """Remembers who was rung for."""

    def __init__(self):
        self.rung = []

    def pending(self, _queue):
        return 0

    def ring_now(self, _queue, job_id):
        self.rung.append(job_id)


@pytest.fixture
def reconcilers(engine):
    settings = Settings(lease_seconds=LEASE)
    return [
        Reconciler(Upkeep(engine), settings, name=name, bell=Bell(), sweep=swept.append, serves=("cpu",))
        for name, swept in (("a", []), ("b", []))
    ]


def test_one_takes_back_and_rings(engine, reconcilers, pass_time):
    first, second = reconcilers
    jobs = JobRepository(engine, DEFAULT_TENANT)
    first.round()
    job = jobs.create(NewJob({"data": {}}, "cpu", "aft", None, {}, 1, None, None)).id
    LeaseRepository(engine).claim("me", 5, ["cpu"])
    pass_time(6)
    second.round()
    assert (jobs.job(job).state, second._bell.rung) == ("running", []), "it is not its duty"
    first.round()
    assert (jobs.job(job).state, first._bell.rung) == ("queued", [job])
    pass_time(LEASE + 1)
    second.round()
    assert second._bell.rung == [job], "the first one is silent"


def test_one_sends(engine):
    upkeep = Upkeep(engine, webhooks=True)
    sent = []
    senders = [Webhooks(upkeep, "http://127.0.0.1:9", "whsec_" + "A" * 32, name) for name in "ab"]
    for sender, name in zip(senders, "ab", strict=True):
        sender._send = lambda message, name=name: (sent.append(name), (None, False))[1]
    job = (
        JobRepository(engine, DEFAULT_TENANT, webhooks=True)
        .create(NewJob({"data": {}}, "cpu", "aft", None, {}, 1, None, None))
        .id
    )
    senders[0].deliver()
    JobRepository(engine, DEFAULT_TENANT, webhooks=True).request_cancel(job)
    senders[1].deliver()
    assert sent == []
    senders[0].deliver()
    assert sent == ["a"]
