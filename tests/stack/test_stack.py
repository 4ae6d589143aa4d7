"""python -m stack: the whole service as processes, started again where it ends, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from stack.logs import Tail, readable
from tests.service import alive, children

COMMAND = [sys.executable, "-P", "-m", "stack", "--port", "0", "--data-dir"]


def descendants(pid):
    return [below for child in children(pid, "") for below in (child, *descendants(child))]


@pytest.fixture
def folder():
    """One that Postgres can enter: it does not run as root."""
    path = Path(tempfile.mkdtemp(prefix="temper-stack-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Stack:
    def __init__(self, folder, log):
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen([*COMMAND, folder], stdout=output, stderr=output)

    def until(self, words, seconds=120):
        """The first line with these words."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if words in line:
                    return line
            time.sleep(0.1)
        raise AssertionError(f"no {words!r}:\n{self.log.read_text()}")


def test_it_runs_heals_and_leaves_nothing_behind(folder, tmp_path):
    stack = Stack(folder, tmp_path / "log")
    try:
        address = stack.until("ready: ").partition("ready: ")[2].partition(",")[0]
        checks = httpx.get(f"{address}/readyz").json()["checks"]
        assert checks.pop("sandbox").startswith("ok (landlock ABI ")
        assert {*checks.values()} == {"ok"}
        assert {"database", "schema", "broker", "workers", "storage"} <= {*checks}
        everything = descendants(stack.process.pid)

        second = subprocess.run([*COMMAND, folder], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "another one runs" in second.stderr

        (worker,) = children(stack.process.pid, "temperd worker")
        os.kill(worker, signal.SIGKILL)
        stack.until("worker-0 was killed by signal 9; it is started again")

        everything += descendants(stack.process.pid)
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(60) == 0
        assert not [pid for pid in everything if alive(pid)]
        assert "killed; its job" not in stack.log.read_text()
    finally:
        stack.process.kill()
        stack.process.wait()
    assert {"postgres", "store", "data", "api.log", "worker-0.log", "reconciler.log"} <= {
        path.name for path in folder.iterdir()
    }


def test_nothing_outlives_its_end_by_kill_9(folder, tmp_path):
    stack = Stack(folder, tmp_path / "log")
    try:
        stack.until("starting")
        deadline = time.monotonic() + 60
        while not children(stack.process.pid, "temperd") and time.monotonic() < deadline:
            time.sleep(0.05)
        everything = descendants(stack.process.pid)
        assert len(everything) >= 3, "Postgres with its own children, Redis, the migration or the API"
    finally:
        stack.process.kill()
        stack.process.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in everything) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in everything if alive(pid)]


def test_lines_of_logs(tmp_path, capsys):
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    tail = Tail({"api": first, "worker-0": second})
    tail.show()
    first.write_text('{"event": "it starts", "level": "info", "logger": "x", "job": "job_1"}\nhalf')
    tail.show()
    with first.open("a") as file:
        file.write(" a line\n")
    second.write_bytes(b"\xff\n")
    tail.show()
    tail.show()
    assert capsys.readouterr().out.splitlines() == [
        "api      | info    it starts job=job_1",
        "api      | half a line",
        "worker-0 | \N{REPLACEMENT CHARACTER}",
    ]


def test_a_trace_is_told_by_its_error():
    entry = {"event": "it failed", "level": "error", "exception": [{"exc_type": "ValueError", "exc_value": "no"}]}
    assert readable(json.dumps(entry)) == "error   it failed ValueError: no"
    assert readable('{"other": 1}') == '{"other": 1}'
    assert readable("[1]") == "[1]"
