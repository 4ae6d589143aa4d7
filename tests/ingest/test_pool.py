"""Work on several cores: the same results in the same order, and nothing is left when it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.pool import WorkerDiedError, ordered

JOBS = [bytes([n % 256]) * (50 * n) for n in range(200)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("ingest.pool._ALONE", 0)


def told(job: bytes) -> bytes:
    return f"{os.getpid()} {len(job)}".encode()


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_results_in_the_order_of_the_jobs(cores):
    results = [result.decode().split() for result in ordered(told, JOBS, cores)]
    assert [int(length) for _, length in results] == [len(job) for job in JOBS]
    assert len({pid for pid, _ in results} - {str(os.getpid())}) == (cores if cores > 1 else 0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_who_stops_listening_ends_the_helpers():
    results = ordered(told, JOBS, 2)
    helpers = {int(next(results).split()[0]) for _ in range(20)} - {os.getpid()}
    assert len(helpers) == 2
    results.close()
    assert not any(alive(pid) for pid in helpers)


def test_a_killed_helper_is_noticed():
    def work(job: bytes) -> bytes:
        if len(job) == 50 * 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    with pytest.raises(WorkerDiedError):
        list(ordered(work, JOBS, 2))


def test_without_processes_all_is_done_here(monkeypatch):
    def refused() -> int:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("os.fork", refused)
    assert {result.split()[0] for result in ordered(told, JOBS, 2)} == {str(os.getpid()).encode()}


_LONG = """
import os, sys, time
from ingest import pool
pool._ALONE = 0
def work(job):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(0.05)
    return job
list(pool.ordered(work, (b"x" for _ in range(10_000)), 2))
"""


def test_helpers_die_with_who_asked_them():
    with subprocess.Popen(
        [sys.executable, "-c", _LONG], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout
        pids = {int(process.stdout.readline()) for _ in range(20)} - {process.pid}
        assert len(pids) == 2
        process.kill()
        process.stdout.read()  # ends when the last of them lets go of it, right before its end
    ends = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < ends
        time.sleep(0.01)
