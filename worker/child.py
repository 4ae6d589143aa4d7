"""A child process in a group of its own: its events, its log, its end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.sandbox.rules import Rules
from worker.watchdog import DEADLINE

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")
_PASSED_PREFIXES = ("CUDA_", "NVIDIA_")
_TAIL_BYTES = 4000
_LINE_BYTES = 1 << 20
_MOST_EVENTS = 256  # that wait here; the child waits with the others
_DEATH_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Child:
    """``python -m MODULE ARGUMENTS`` with stdout as JSON lines and stderr into a log file.

    It inherits no credentials: only the variables that a Python process needs. The thread that makes it must
    outlive it, since the kernel ties the child to that thread (see leash).
    """

    def __init__(self, arguments: Sequence[str], log: Path, deadline: float, home: Path, rules: Rules | None) -> None:
        """``deadline``: see ``live_until``. ``home``: see ``environment``. ``rules``: None for no sandbox."""
        python = [sys.executable, "-P", "-m"]
        wire, ours = os.pipe()
        os.set_blocking(ours, False)
        self._wire, self._wire_lock = os.fdopen(ours, "wb", buffering=0), threading.Lock()
        self.live_until(deadline)
        leash = [*python, "worker.leash", str(os.getpid()), str(wire), rules.to_json() if rules else "-"]
        self._log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*leash, *python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(home),
                pass_fds=(wire,),
                start_new_session=True,
            )
        os.close(wire)
        self._family: set[_Process] = set()  # ranks of a job on several devices have sessions of their own
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_EVENTS)
        self._ended = self._killed = False
        threading.Thread(target=self._read, name="child-events", daemon=True).start()

    def live_until(self, deadline: float) -> None:
        """Its watchdog kills it then, by time.monotonic, whatever becomes of this process; a later one replaces it."""
        with self._wire_lock, contextlib.suppress(OSError):  # it is dead, or was stopped for long and reads nothing
            if not self._wire.closed:
                self._wire.write(DEADLINE.pack(deadline))

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the child has no stdout")
        with self._process.stdout as lines:
            for line in iter(lambda: lines.readline(_LINE_BYTES), b""):
                try:
                    event = json.loads(line.replace(rb"\u0000", rb"\ufffd"))  # no database stores NUL
                    json.dumps(event, ensure_ascii=False).encode()
                except ValueError:
                    continue  # half a line of a killed child, or text that could be stored nowhere
                if isinstance(event, dict):
                    self._tell(event)
        self._tell(None)

    def _tell(self, event: dict[str, Any] | None) -> None:
        while True:
            try:
                self._events.put(event, timeout=1.0)
            except queue.Full:
                if self._killed:  # perhaps nobody listens any more
                    with contextlib.suppress(queue.Empty):
                        self._events.get_nowait()
            else:
                return

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """The next event, or None after ``timeout`` seconds or at the end; see ``ended``."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None:
            self._note_family()  # while its number is its own
            self._process.wait()
            self._ended = True
        return event

    @property
    def ended(self) -> bool:
        """Whether the process is dead and every event was taken."""
        return self._ended

    @property
    def returncode(self) -> int:
        """Exit status; negative for a signal."""
        return self._process.wait()

    @property
    def pid(self) -> int:
        """Process and group id."""
        return self._process.pid

    def ask_to_stop(self) -> None:
        """SIGTERM: save the state and exit."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to it and all that came from it; returns when every one of them is dead, however long it takes."""
        self._note_family()
        warned = time.monotonic()
        while living := self._family & _processes().keys():
            if time.monotonic() > warned + _DEATH_SECONDS:
                warned = time.monotonic()
                _log.error("the kernel does not end %s", ", ".join(str(process.pid) for process in living))
            for process in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)
            self._note_family()
        self._killed = True
        self._process.wait()
        with self._wire_lock:
            self._wire.close()

    def _note_family(self) -> None:
        """Add what belongs to it now: its group, and everything below what belonged to it before."""
        there = _processes()
        if self._process.returncode is None:  # once it was waited for, its number may be another's
            group = self._process.pid
            self._family |= {process for process, (_, its_group) in there.items() if its_group == group}
        while below := {
            process
            for process, (parent, _) in there.items()
            if process not in self._family and parent in {member.pid for member in self._family & there.keys()}
        }:
            self._family |= below

    def log_tail(self) -> str:
        """The last lines of what it wrote to stderr."""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")


def environment(home: Path) -> dict[str, str]:
    """Of a child: nothing secret. What libraries keep in a home, or among temporary files, goes to its own folder."""
    passed = {key: value for key, value in os.environ.items() if key in _PASSED_ON or key.startswith(_PASSED_PREFIXES)}
    # packages of a user without a virtual environment would be looked for in HOME
    return {**passed, "HOME": str(home), "TMPDIR": str(home), "PYTHONUSERBASE": site.getuserbase()}


@dataclass(frozen=True)
class _Process:
    """A process for good: its number may be used again, but not with the same time of birth."""

    pid: int
    born: int


def _processes() -> dict[_Process, tuple[int, int]]:
    """Parent and group of all processes but zombies."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, group, *rest = stat.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found[_Process(int(stat.parent.name), int(rest[16]))] = (int(parent), int(group))
    return found
