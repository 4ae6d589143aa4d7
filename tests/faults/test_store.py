"""The store is full, damaged or away."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from stack.servers import S3
from tests.faults.floor import Floor, alive, until, weights
from tests.faults.proxy import Proxy
from worker.sweep import sweep

LIMITED = Path(__file__).with_name("limited_worker.py")


def test_a_full_store_is_told_and_keeps_the_last_state(floor):
    floor.worker(str(LIMITED), str(1 << 20))
    job = floor.submit(epochs=6, megabytes=0.3)
    failed = floor.wait(job)
    assert (failed.state, failed.failure["code"], failed.failure["blame"]) == ("failed", "storage_full", "system")
    assert failed.failure["hint"]
    state = max(floor.jobs.artifacts(job, "state").values(), key=lambda state: state.created_at)
    floor.storage.fetch([state.key], state.sha256, floor.folder / "state")
    assert '"epoch": 3' in (floor.folder / "state").read_text()
    assert floor.succeeded(floor.submit(seed=2), seed=2)


def test_a_full_disk_of_the_engine_keeps_the_last_state_and_the_job_can_go_on(floor):
    floor.worker()
    job = floor.submit(epochs=6, mode="full")
    failed = floor.wait(job)
    assert (failed.state, failed.failure["code"]) == ("failed", "storage_full")
    assert "training-1.json" in floor.jobs.artifacts(job, "state")
    resumed = floor.jobs.resume(job)
    assert (resumed.state, resumed.failure, resumed.finished_at) == ("queued", None, None)
    until(lambda: floor.state(job) == "succeeded", what="the end")
    assert floor.weights(job) == weights(6, 1)
    assert floor.begins(job) == [0, 3]


@pytest.mark.long
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_state_is_never_resumed_from(floor, damaged):
    """The one before it is, or none; the end is the same."""
    first = floor.worker()
    job = floor.submit(epochs=12, pause=0.3)
    floor.until_epoch(job, 3)
    first.stop()
    newest = sorted(floor.jobs.artifacts(job, "state").values(), key=lambda state: state.created_at, reverse=True)
    reached = floor.jobs.job(job).reached_epoch
    for state in newest[:damaged]:
        path = floor.folder / "store" / state.key
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    floor.worker()
    floor.succeeded(job, epochs=12)
    assert floor.begins(job)[-1] == (reached - 1 if damaged == 1 else 0)
    told = [event.data["file"] for event in floor.jobs.events(job, after=0, limit=999) if event.type == "damaged"]
    assert sorted(told) == sorted(state.name for state in newest[:damaged])


def test_what_was_stored_without_a_row_is_swept_and_nothing_else(floor):
    (floor.folder / "store" / "jobs").mkdir(parents=True)
    lost = floor.folder / "store" / "jobs" / "lost"
    lost.write_bytes(b"x")
    foreign = floor.folder / "store" / "thesis.tex"
    foreign.write_bytes(b"x")
    job = floor.submit()
    floor.worker(TEMPER_SWEEP_SECONDS="1")
    floor.succeeded(job)
    until(lambda: not lost.exists(), what="the sweep")
    time.sleep(2)
    assert floor.weights(job)
    assert foreign.exists(), "what is not ours is nobody's to sweep"


def test_the_store_of_another_service_is_left_alone(floor):
    lost = floor.folder / "store" / "jobs" / "lost"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"x")
    (floor.folder / "store" / "temper-owner").write_text("somebody else")
    sweep(floor.storage, floor.upkeep, 0)
    assert lost.exists()
    (floor.folder / "store" / "temper-owner").unlink()
    sweep(floor.storage, floor.upkeep, 0)
    assert not lost.exists()


def test_what_a_killed_process_left_half_written_is_swept(floor):
    staged = floor.folder / "store" / "uploads" / "up_1#3"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"x")
    sweep(floor.storage, floor.upkeep, 60)
    assert staged.exists()
    sweep(floor.storage, floor.upkeep, 0)
    assert not staged.exists()


@pytest.fixture
def far(tmp_path, postgres_url, redis, monkeypatch):
    """An S3 server behind a proxy."""
    with S3() as server, Proxy(server.port) as proxy:
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with Floor(tmp_path, postgres_url, redis.url, store_url=server.url) as floor:
            yield floor, proxy


def test_a_store_that_is_away_for_a_while(far):
    floor, proxy = far
    floor.worker()
    job = floor.submit(epochs=10, pause=0.3)
    floor.until_epoch(job, 2)
    proxy.cut()
    time.sleep(4)
    proxy.open()
    assert floor.succeeded(job, epochs=10).attempt == 1


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_a_user_who_cancels_does_not_wait_for_the_store(far, fault):
    floor, proxy = far
    worker = floor.worker()
    job = floor.submit(epochs=30, pause=0.3)
    floor.until_epoch(job, 2)
    engine = worker.engine()
    getattr(proxy, fault)()
    time.sleep(1)
    floor.jobs.request_cancel(job)
    until(lambda: floor.state(job) == "cancelled", 10, what="the end")
    assert not alive(engine)


@pytest.mark.long
@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_nor_does_a_worker_that_is_to_end(far, fault):
    """What could not be stored is lost; the job goes on from what was stored before."""
    floor, proxy = far
    worker = floor.worker(TEMPER_DRAIN_SECONDS="3")
    job = floor.submit(epochs=40, pause=0.3)
    floor.until_epoch(job, 2)
    getattr(proxy, fault)()
    time.sleep(1)
    assert worker.stop(signal.SIGTERM, 30) == 0
    assert floor.state(job) == "queued"
    proxy.cut()
    proxy.open()
    floor.worker()
    assert floor.succeeded(job, epochs=40).attempt == 2
    assert floor.begins(job)[-1] >= 1


@pytest.mark.long
def test_nor_does_a_user_who_pauses(far):
    floor, proxy = far
    floor.worker(TEMPER_DRAIN_SECONDS="3")
    job = floor.submit(epochs=40, pause=0.3)
    floor.until_epoch(job, 2)
    proxy.freeze()
    floor.jobs.request_pause(job)
    until(lambda: floor.state(job) == "paused", 15, what="the pause")
