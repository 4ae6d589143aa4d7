"""Redis in every bad state: no job is lost, and no answer waits for it."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
import redis as redis_client

from stack.servers import Redis
from tests.faults.floor import EXIT_SECONDS, LEASE, Floor, until
from tests.faults.proxy import Proxy

HANGING = Path(__file__).with_name("hanging_worker.py")
DEAF = Path(__file__).with_name("deaf_worker.py")


def test_one_message_a_hundred_times_runs_its_job_once(floor):
    job = floor.submit(ring=False)
    for _ in range(100):
        floor.bell.ring("cpu", job)
    floor.worker()
    floor.worker()
    assert floor.succeeded(job).attempt == 1
    until(lambda: floor.bell.pending("cpu") == 0, what="an empty queue")


def test_a_job_whose_ring_was_never_sent_is_rung_for(floor):
    floor.worker()
    job = floor.submit(ring=False)
    assert floor.succeeded(job).attempt == 1


def test_a_worker_takes_only_its_queues(floor):
    floor.worker(TEMPER_QUEUES="cpu")
    gpu = floor.submit(queue="gpu")
    assert floor.succeeded(floor.submit(seed=2), seed=2)
    time.sleep(2)
    assert floor.state(gpu) == "queued"
    floor.worker(TEMPER_QUEUES="gpu,gpu-large")
    assert floor.succeeded(gpu)


def test_a_flushed_redis(floor, redis):
    jobs = [floor.submit(seed=n, epochs=3) for n in range(5)]
    until(lambda: floor.bell.pending("cpu") == 5, what="the rings")
    with redis_client.Redis.from_url(redis.url) as client:
        client.flushall()
    floor.worker()
    for n, job in enumerate(jobs):
        floor.succeeded(job, seed=n, epochs=3)


def test_a_celery_that_does_not_end_is_ended(floor):
    worker = floor.worker(str(HANGING), TEMPER_DRAIN_SECONDS="1")
    floor.succeeded(floor.submit())
    assert worker.stop(signal.SIGTERM, EXIT_SECONDS) == 0
    assert "Celery did not end in time" in worker.log.read_text()


def test_a_celery_that_no_longer_listens_is_begun_again(floor):
    worker = floor.worker(str(DEAF))
    assert floor.succeeded(floor.submit()).attempt == 1
    assert worker.log.read_text().count("begins again") == 1
    assert worker.stop(signal.SIGTERM, EXIT_SECONDS) == 0


def test_a_busy_worker_is_not_taken_for_deaf(floor):
    worker = floor.worker()
    busy = floor.submit(epochs=30, pause=0.3)
    floor.until_epoch(busy, 1)
    waiting = floor.submit(seed=2)
    floor.succeeded(busy, epochs=30)
    floor.succeeded(waiting, seed=2)
    assert "begins again" not in worker.log.read_text()


def test_no_more_rings_than_waiting_jobs(floor):
    """The reconciler's rings do not pile up while a worker is busy."""
    floor.worker()
    busy = floor.submit(epochs=30, pause=0.2)
    floor.until_epoch(busy, 1)
    waiting = [floor.submit() for _ in range(3)]
    time.sleep(4)
    assert floor.bell.pending("cpu") <= 6, "one by who submits it, and one by a reconciler that looked in between"
    floor.jobs.request_cancel(busy)
    for job in waiting:
        floor.succeeded(job)


@pytest.fixture
def own(tmp_path, postgres_url):
    """A Redis of its own, behind a proxy."""
    with Redis() as server, Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with Floor(tmp_path, postgres_url, url, lease_seconds=3 * LEASE) as floor:  # a slow disk is no fault here
            yield floor, server, proxy


def restart(server, proxy):
    server.kill(signal.SIGKILL)
    time.sleep(3)
    server.start()


def stop_and_continue(server, proxy):
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    server.process.send_signal(signal.SIGCONT)


def black_hole(server, proxy):
    proxy.freeze()
    time.sleep(5)
    proxy.cut()
    proxy.open()


@pytest.mark.parametrize("fault", [restart, stop_and_continue, black_hole])
def test_redis_is_gone_for_a_while(own, fault):
    """A job that runs goes on; one that is submitted meanwhile is accepted at once, and runs when Redis is back."""
    floor, server, proxy = own
    floor.worker()
    running = floor.submit(epochs=20, pause=0.3)
    floor.until_epoch(running, 1)
    outage = threading.Thread(target=fault, args=(server, proxy))
    outage.start()
    time.sleep(0.5)
    meanwhile = floor.submit(seed=2)
    assert outage.is_alive(), "it was not waited for"
    outage.join()
    assert floor.succeeded(running, epochs=20).attempt == 1
    assert floor.succeeded(meanwhile, seed=2)
