"""Processes that wait beside ingest: they help it, and end when it does. What they may do: test_sandbox.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service import alive
from worker.child import environment
from worker.files import FOLDERS
from worker.sandbox.rules import ingest_rules

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core needs no help")
# jobs are evaluated; the first of them is done before anybody helps
MAIN = """
import os, sys
from ingest import pool
pool._ALONE = 0
for answer in pool.ordered(eval, JOBS, 2):
    print(answer.decode(), flush=True)
sys.stdin.read()
"""
WHO = "b\"str(__import__('os').getpid()).encode()\""
DIE = "b\"__import__('os').kill(__import__('os').getpid(), 9)\""


@pytest.fixture
def start(tmp_path):
    """Ingest's main process, under its rules and doing this."""
    for name in (*FOLDERS, "home-ingest"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in ("spec.json", "ingest.json"):
        (tmp_path / name).touch()
    home = tmp_path / "home-ingest"
    rules = ingest_rules(tmp_path, home, [], [], 2**30).to_json()

    def start(code):
        leash = [sys.executable, "-P", "-m", "worker.leash", str(os.getpid()), "-", rules]
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        return subprocess.Popen([*leash, sys.executable, "-P", "-c", code], **pipes, text=True, env=environment(home))

    return start


def below(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until_dead(pids):
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.05)


def test_they_help(start):
    with start(MAIN.replace("JOBS", f"[{WHO}] * 40")) as main:
        pids = [int(main.stdout.readline()) for _ in range(40)]
        assert pids[0] == main.pid
        assert len({*pids[1:]}) == 2
        assert main.pid not in pids[1:]
        main.stdin.close()
    assert main.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_they_end_with_who_they_wait_for(start, number):
    with start("import sys; print('ready', flush=True); sys.stdin.read()") as main:
        assert main.stdout.readline() == "ready\n"
        waiting = below(main.pid)
        assert len(waiting) >= 2
        main.send_signal(number)
    until_dead(waiting)


def test_they_end_when_nobody_needs_them(start):
    with start("import sys; print('ready', flush=True); sys.stdin.read()") as main:
        assert main.stdout.readline() == "ready\n"
        waiting = below(main.pid)
        main.stdin.close()
    assert main.returncode == 0
    until_dead(waiting)


def test_a_killed_one_is_noticed(start):
    with start(MAIN.replace("JOBS", f"[{WHO}, {DIE}, {WHO}]")) as main:
        assert main.stdout.read() == f"{main.pid}\n"
    assert main.returncode == 1
