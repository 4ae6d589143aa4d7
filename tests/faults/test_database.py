"""Postgres restarts, breaks off and hangs; training goes on while it is away, until the lease ends."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from jobs.database import PATIENCE, open_database
from jobs.repository import JobRepository
from jobs.tables import DEFAULT_TENANT
from stack.servers import Postgres
from temperd.schema import upgrade
from tests.faults.floor import EXIT_SECONDS, LEASE, Floor, alive, until
from tests.faults.proxy import Proxy


@pytest.fixture
def own(tmp_path, redis):
    """A Postgres of its own; the workers reach it through a proxy, the test goes straight."""
    with Postgres() as server, Proxy(server.port) as proxy:
        upgrade(server.url)
        settings = {"lease_seconds": 3 * LEASE}
        with Floor(tmp_path, server.url, redis.url, **settings) as floor:
            floor.environment["TEMPER_DATABASE_URL"] = server.url.replace(f":{server.port}/", f":{proxy.port}/")
            yield floor, server, proxy


def test_a_restart_without_a_goodbye(own):
    floor, server, _ = own
    floor.worker()
    job = floor.submit(epochs=30, pause=0.2)
    floor.until_epoch(job, 2)
    server.restart_now()
    assert floor.succeeded(job, epochs=30).attempt == 1, "back before the lease ended: nothing was repeated"


@pytest.mark.long
def test_a_connection_that_breaks_again_and_again(own):
    floor, _, proxy = own
    floor.worker()
    job = floor.submit(epochs=30, pause=0.2)
    floor.until_epoch(job, 1)
    for _ in range(5):
        time.sleep(0.4)
        proxy.cut()
        proxy.open()
    assert floor.succeeded(job, epochs=30).attempt == 1


def test_training_goes_on_while_the_database_is_away(own):
    floor, _, proxy = own
    worker = floor.worker()
    job = floor.submit(epochs=30, pause=0.2)
    floor.until_epoch(job, 2)
    engine = worker.engine()
    proxy.cut()
    time.sleep(LEASE)
    assert alive(engine), "there was time left"
    proxy.open()
    assert floor.succeeded(job, epochs=30).attempt == 1


@pytest.mark.long
@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_away_for_longer_than_the_lease(own, fault):
    """The worker that cannot renew ends its engine by its own clock; another one goes on."""
    floor, _, proxy = own
    worker = floor.worker()
    job = floor.submit(epochs=60, pause=0.2)
    floor.until_epoch(job, 2)
    engine = worker.engine()
    getattr(proxy, fault)()
    until(lambda: not alive(engine), 4 * LEASE, what="the engine's death")
    assert floor.state(job) == "running", "nobody knows yet"
    proxy.cut()
    proxy.open()
    assert floor.succeeded(job, epochs=60).attempt == 2


@pytest.mark.long
def test_sigterm_while_the_database_is_away(own):
    """The lease is longer than a worker may take to end: it does not wait for it."""
    floor, _, proxy = own
    floor.environment["TEMPER_LEASE_SECONDS"] = "120"
    worker = floor.worker()
    job = floor.submit(epochs=100, pause=0.3)
    floor.until_epoch(job, 1)
    proxy.freeze()
    assert worker.stop(signal.SIGTERM, EXIT_SECONDS) == 0
    proxy.cut()
    proxy.open()


def test_a_frozen_database_is_an_error_in_the_end(own):
    """It neither answers nor hangs up: without a limit of our own everybody would wait for ever."""
    floor, _, proxy = own
    jobs = JobRepository(open_database(floor.environment["TEMPER_DATABASE_URL"]), DEFAULT_TENANT)
    job = floor.submit(ring=False)
    assert jobs.job(job).id == job
    proxy.freeze()
    failed = []

    def ask():
        try:
            jobs.job(job)
        except OperationalError as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(3 * PATIENCE)
    proxy.cut()
    proxy.open()
    assert failed
