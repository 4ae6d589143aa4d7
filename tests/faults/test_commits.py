"""A crash right before and right after each commit of a worker, and of the API."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.core.workdirs import small_data
from tests.faults.floor import LEASE, ROOT, Floor
from worker.sweep import sweep

CRASHING = Path(__file__).with_name("crashing_worker.py")
WRITES = ["claim", "renew", "set_progress", "add_event", "add_log", "add_state"]

pytestmark = pytest.mark.parametrize("when", ["before", "after"])


@pytest.fixture
def marks(tmp_path):
    """A folder with a file for each crash: a test without any has shown nothing."""
    folder = tmp_path / "marks"
    folder.mkdir()
    yield folder
    assert len([*folder.iterdir()]) == 1, "it did crash"


@pytest.mark.parametrize("write", ["succeed", *(pytest.param(write, marks=pytest.mark.long) for write in WRITES)])
def test_the_job_is_done_once_whatever_was_written(floor, write, when, marks):
    job = floor.submit(epochs=6, pause=0.25)
    floor.worker(str(CRASHING), write, when, "1", str(marks))
    floor.succeeded(job, epochs=6)


@pytest.mark.long
def test_a_crash_at_the_release(floor, when, marks):
    job = floor.submit(epochs=8, pause=0.25)
    first = floor.worker(str(CRASHING), "release", when, "1", str(marks))
    floor.until_epoch(job, 2)
    first.stop()
    floor.worker()
    floor.succeeded(job, epochs=8)


def test_a_job_that_fails_fails_once(floor, when, marks):
    job = floor.submit(mode="diverge")
    floor.worker(str(CRASHING), "fail", when, "1", str(marks))
    assert floor.wait(job).failure["code"] == "diverged"
    floor.check_history(job)


def test_a_job_that_is_cancelled_is_cancelled_once(floor, when, marks):
    job = floor.submit(epochs=100, pause=0.2)
    floor.worker(str(CRASHING), "cancelled", when, "1", str(marks))
    floor.until_epoch(job, 1)
    floor.jobs.request_cancel(job)
    assert floor.wait(job).state == "cancelled"
    floor.check_history(job)


@pytest.mark.long
def test_a_reconciler_that_dies_while_it_takes_a_job_back(floor, when, marks):
    first = floor.worker()
    job = floor.submit(epochs=8, pause=0.25)
    floor.until_epoch(job, 2)
    first.stop(signal.SIGKILL)
    time.sleep(LEASE + 0.5)
    second = floor.worker(str(CRASHING), "take_back", when, "1", str(marks))
    assert second.process.wait(30) == -signal.SIGKILL
    floor.worker()
    floor.succeeded(job, epochs=8)


@pytest.mark.long
@pytest.mark.parametrize(
    ("wish", "source", "target"),
    [
        ("cancel", "queued", "cancelled"),
        ("pause", "running", "running"),
        ("resume", "paused", "queued"),
        ("delete", "cancelled", None),
    ],
)
def test_an_api_that_dies_while_it_takes_a_wish(floor, when, marks, wish, source, target):
    """It was heard or it was not, and saying it again is right in both cases."""
    job = floor.submit(ring=False)
    if source in ("running", "paused"):
        claim = floor.leases.claim("me", 600, ["cpu"])
    if source == "paused":
        floor.jobs.request_pause(job)
        floor.leases.release(claim, charged=False)
    if source == "cancelled":
        floor.jobs.request_cancel(job)
    method = {"cancel": "request_cancel", "pause": "request_pause"}.get(wish, wish)
    command = [sys.executable, "-P", CRASHING, method, when, "1", marks, "api", "--port", "0"]
    environment = {**floor.environment, "PYTHONPATH": str(ROOT)}  # the API needs the real engine's specs
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd="/") as api:
        address = api.stdout.readline().split()[-1]
        path = f"{address}/jobs/{job}" + ("" if wish == "delete" else f"/{wish}")
        with pytest.raises(httpx.TransportError):
            httpx.request("DELETE" if wish == "delete" else "POST", path, headers=floor.headers, timeout=60)
        assert api.wait(30) == -signal.SIGKILL
    again = getattr(floor.jobs, method)
    if when == "before":
        assert floor.state(job) == source
        again(job)
    if target is None:
        assert floor.jobs.page(state=None, defense=None, limit=1, after=None) == []
        return
    assert floor.state(job) == target
    assert floor.jobs.job(job).pause_requested == (wish == "pause")
    again(job)
    assert floor.state(job) == target


def test_an_api_that_dies_while_it_takes_a_job(tmp_path, postgres_url, redis, example, arrays, when, marks):
    """The job is there with its files, and waits, or there is nothing of it."""
    data = small_data(tmp_path / "data.npz", arrays)
    with Floor(tmp_path, postgres_url, redis.url, engine=False) as floor:
        command = [sys.executable, "-P", CRASHING, "create", when, "1", marks, "api", "--port", "0"]
        with subprocess.Popen(command, env=floor.environment, stdout=subprocess.PIPE, text=True, cwd="/") as api:
            address = api.stdout.readline().split()[-1]
            files = {"checkpoint": (example / "checkpoint.pt").read_bytes(), "data": ("d.npz", data.read_bytes())}
            form = {"architecture": "fmnist-cnn", "defense": "aft", "eps": "0.1"}
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{address}/jobs", data=form, files=files, headers=floor.headers, timeout=60)
            assert api.wait(30) == -signal.SIGKILL
        jobs = floor.jobs.page(state=None, defense=None, limit=10, after=None)
        assert len(jobs) == (when == "after")
        assert floor.upkeep.waiting() == ({"cpu": [jobs[0].id]} if jobs else {})
        floor.expire_uploads()
        sweep(floor.storage, floor.upkeep, 0)
        assert len([path for path in (tmp_path / "store" / "uploads").rglob("*") if path.is_file()]) == 2 * len(jobs)
