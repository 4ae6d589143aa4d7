"""kill -9, SIGSTOP and SIGTERM of every process that works at a job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.floor import alive, command_of, descendants, until


def kill_engine(worker):
    os.kill(worker.engine(), signal.SIGKILL)


def kill_pool_child(worker):
    """The forked child of Celery that supervises the job."""
    parent = int(Path(f"/proc/{worker.engine()}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent in descendants(worker.process.pid)
    os.kill(parent, signal.SIGKILL)


def kill_worker(worker):
    worker.send(signal.SIGKILL)


def kill_all(worker):
    for pid in [worker.process.pid, *descendants(worker.process.pid)]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_engine, kill_pool_child, kill_worker, kill_all])
def test_kill_9_in_the_middle_of_an_epoch(floor, kill):
    """The job goes on from its last epoch, by another worker if need be, and nothing of the old one lives on."""
    first = floor.worker()
    job = floor.submit(epochs=8, pause=0.3)
    floor.until_epoch(job, 2)
    engine = first.engine()
    floor.worker()
    kill(first)
    until(lambda: not alive(engine), 5, what="the engine's death")
    until(lambda: floor.attempt(job) == 2, what="the second attempt")
    assert floor.succeeded(job, epochs=8).attempt == 2
    assert floor.begins(job)[-1] >= 1, "it went on from what was saved"


def test_an_engine_that_hangs_is_ended(floor):
    worker = floor.worker(TEMPER_SILENCE_SECONDS="3")
    job = floor.submit(epochs=8, pause=0.3)
    floor.until_epoch(job, 2)
    engine = worker.engine()
    os.kill(engine, signal.SIGSTOP)
    until(lambda: floor.attempt(job) == 2, what="the second attempt")
    assert not alive(engine)
    assert floor.succeeded(job, epochs=8).lost == 1
    assert floor.begins(job)[-1] >= 1
    lost = [event for event in floor.jobs.events(job, after=0, limit=99) if event.type == "lost"]
    assert "said nothing for 3 s" in lost[0].data["detail"]


def test_an_engine_that_stops_though_nobody_asked_is_poison(floor):
    floor.worker()
    failed = floor.wait(floor.submit(mode="stop"))
    assert (failed.state, failed.failure["code"], failed.attempt) == ("failed", "poison", 3)


def test_a_worker_that_cannot_work_ends_and_hears_no_rings(floor):
    (floor.folder / "work").write_text("in the way")
    job = floor.submit()
    worker = floor.worker()
    assert worker.process.wait(60) == 1
    assert floor.state(job) == "queued"
    (floor.folder / "work").unlink()
    floor.worker()
    assert floor.succeeded(job)


def test_a_worker_that_was_stopped_past_its_lease_writes_nothing_any_more(floor):
    """The engine of the old one is stopped too; when both go on, it is another worker's job."""
    first = floor.worker()
    job = floor.submit(epochs=10, pause=0.3)
    floor.until_epoch(job, 2)
    frozen = [first.process.pid, *descendants(first.process.pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    floor.worker()
    until(lambda: floor.attempt(job) == 2, what="the second attempt")
    floor.until_epoch(job, 4)
    engine = [pid for pid in frozen if "core run" in command_of(pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not any(alive(pid) for pid in engine), 10, what="the death of the stale engine")
    assert floor.succeeded(job, epochs=10).attempt == 2
    assert first.process.poll() is None, "the worker itself lives on"
    assert floor.succeeded(floor.submit(seed=7), seed=7)


@pytest.mark.parametrize("wish", ["", "cancel"])
def test_the_engine_of_a_worker_that_was_stopped_is_ended(floor, wish):
    """The engine itself was not stopped: nobody but its watchdog can know that it has no lease any more."""
    first = floor.worker()
    job = floor.submit(epochs=100, pause=0.3)
    floor.until_epoch(job, 2)
    engine = first.engine()
    supervisors = [first.process.pid, *(pid for pid in descendants(first.process.pid) if "temperd" in command_of(pid))]
    assert len(supervisors) == 2
    for pid in supervisors:
        os.kill(pid, signal.SIGSTOP)
    second = floor.worker()
    if wish:
        floor.jobs.request_cancel(job)
        until(lambda: floor.state(job) == "cancelled", what="the cancel")
        assert not alive(engine), "cancelled is true only when its process is dead"
    else:
        until(lambda: floor.attempt(job) == 2, what="the second attempt")
        assert not alive(engine), "it died before the next one began"
        floor.jobs.request_cancel(job)
    first.stop(signal.SIGKILL)
    second.stop()


def test_a_pause_that_comes_while_uploads_are_prepared_keeps_the_engine_from_starting(floor):
    """Ingest does not hear of it, and ends well a moment later."""
    worker = floor.worker()
    job = floor.submit(epochs=100, pause=0.3, ingest="deaf")
    until(lambda: worker.below("-m ingest"), what="ingest")
    time.sleep(0.5)
    floor.jobs.request_pause(job)
    until(lambda: floor.state(job) == "paused", 12, what="the pause")
    assert floor.begins(job) == [], "no engine has begun"


def test_sigterm_saves_the_state_and_gives_the_job_back_uncharged(floor):
    first = floor.worker()
    job = floor.submit(epochs=8, pause=0.3)
    floor.until_epoch(job, 2)
    assert first.stop(signal.SIGTERM, 30) == 0
    assert [*(floor.folder / "work").iterdir()] == [], "nothing is left lying about"
    assert floor.upkeep.workers(60) == {}, "it said that it leaves"
    waiting = floor.jobs.job(job)
    assert (waiting.state, waiting.stalled, waiting.owner) == ("queued", 0, None)
    floor.worker()
    assert floor.succeeded(job, epochs=8).attempt == 2
    assert floor.begins(job)[-1] >= 2
    assert floor.jobs.job(job).lost == 0


def test_sigterm_to_everything_at_once(floor):
    """As systemd does it: to the whole control group."""
    first = floor.worker()
    job = floor.submit(epochs=8, pause=0.3)
    floor.until_epoch(job, 2)
    for pid in [first.process.pid, *descendants(first.process.pid)]:
        os.kill(pid, signal.SIGTERM)
    assert first.process.wait(30) == 0
    assert floor.state(job) == "queued"
    floor.worker()
    assert floor.succeeded(job, epochs=8).attempt == 2


def test_cancel_is_true_only_when_the_process_is_dead(floor):
    worker = floor.worker()
    job = floor.submit(epochs=100, pause=0.2)
    floor.until_epoch(job, 1)
    engine = worker.engine()
    floor.jobs.request_cancel(job)
    while floor.state(job) == "running":
        time.sleep(0.01)
    assert not alive(engine), "cancelled is true only when its process is dead"
    floor.check_history(job)
    assert floor.succeeded(floor.submit()), "the worker is free for the next one"


def test_pause_frees_the_worker_and_resume_goes_on(floor):
    worker = floor.worker()
    job = floor.submit(epochs=8, pause=0.3)
    floor.until_epoch(job, 2)
    engine = worker.engine()
    floor.jobs.request_pause(job)
    until(lambda: floor.state(job) == "paused", 15, what="the pause")
    assert not alive(engine)
    assert floor.succeeded(floor.submit(seed=3), seed=3)
    floor.bell.ring("cpu", floor.jobs.resume(job).id)
    assert floor.succeeded(job, epochs=8).attempt == 2
    assert floor.begins(job)[-1] >= 2


def test_three_crashes_are_poison_and_the_worker_lives(floor):
    worker = floor.worker()
    job = floor.submit(mode="crash")
    failed = floor.wait(job)
    assert (failed.state, failed.failure["code"], failed.attempt) == ("failed", "poison", 3)
    floor.check_history(job)
    assert floor.succeeded(floor.submit())
    assert worker.process.poll() is None
