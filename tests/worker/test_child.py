"""Children: all that comes from them dies with them, and what they say can be stored."""

from __future__ import annotations

import json
import time

import pytest

from tests.faults.floor import alive, group_of, processes
from worker.child import Child
from worker.log import LogBuffer

# timeit runs statements: a program without a file
GRANDCHILD = """
import subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
print('{"type": "below", "pid": %d}' % below.pid, flush=True)
"""


@pytest.fixture
def run(tmp_path):
    children = []

    def run(code: str, seconds: float = 100) -> Child:
        arguments = ["timeit", "-n1", "-r1", "-s", code, "pass"]
        children.append(Child(arguments, tmp_path / "log", time.monotonic() + seconds, tmp_path, rules=None))
        return children[-1]

    yield run
    for child in children:
        child.kill()


def event(child: Child) -> dict:
    while not child.ended:
        if found := child.next_event(1):
            return found
    raise AssertionError(child.log_tail())


def test_what_left_its_group_dies_with_it(run):
    """As the ranks of a job on several devices do."""
    child = run(GRANDCHILD + "time.sleep(100)")
    below = event(child)["pid"]
    child.kill()
    assert not alive(below)
    assert not alive(child.pid)


def test_what_is_in_its_group_dies_though_it_has_ended_itself(run):
    child = run(GRANDCHILD.replace(", start_new_session=True", "") + "below.returncode = 0")
    below = event(child)["pid"]
    until_dead(child.pid)
    child.kill()
    assert not alive(below)
    assert not alive(child.pid)


def test_nul_is_told_as_something_that_can_be_stored(run):
    child = run(r"""print('{"type": "failure", "detail": "a\\u0000b"}', flush=True)""")
    assert event(child)["detail"] == "a�b"
    buffer = LogBuffer()
    buffer.add("a\0b")
    assert buffer.take(now=True) == "a�b\n"


def test_only_the_end_of_what_it_wrote_is_told(run, tmp_path):
    child = run("import sys; sys.stderr.write('x' * 100_000 + 'end')")
    while not child.ended:
        child.next_event(1)
    assert child.log_tail().endswith("end")
    assert len(child.log_tail()) == 4000


def until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


def test_the_watchdog_kills_at_the_deadline_though_nobody_does_anything(run):
    child = run(GRANDCHILD.replace(", start_new_session=True", "") + "time.sleep(100)", seconds=2)
    below = event(child)["pid"]
    until_dead(child.pid)
    until_dead(below)


def test_a_later_deadline_replaces_the_first(run):
    child = run("import time; time.sleep(100)", seconds=2)
    child.live_until(time.monotonic() + 100)
    time.sleep(3)
    assert alive(child.pid)
    child.live_until(time.monotonic() + 0.2)
    until_dead(child.pid)


def test_a_watchdog_ends_with_its_engine(run):
    child = run("print('{}', flush=True)")
    while not child.ended:
        child.next_event(1)
    assert child.returncode == 0
    deadline = time.monotonic() + 20
    while group := [pid for pid in processes() if group_of(pid) == child.pid]:
        assert time.monotonic() < deadline, group
        time.sleep(0.05)


def test_what_a_child_said_last_is_heard_though_it_was_told_to_stop_meanwhile(run, monkeypatch):
    """A stop finds out that it is dead before all that it said was read."""
    loads = json.loads
    monkeypatch.setattr("worker.child.json.loads", lambda line: time.sleep(0.05) or loads(line))
    child = run("for n in range(10): print('{\"n\": %d}' % n, flush=True)")
    child.next_event(5)
    deadline = time.monotonic() + 10
    while alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.ask_to_stop()
    heard = [found for _ in iter(lambda: child.ended, True) if (found := child.next_event(1))]
    assert len(heard) == 9
