"""A child process in a group of its own: its events, its log, its end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")
_PASSED_PREFIXES = ("CUDA_", "NVIDIA_")
_TAIL_BYTES = 4000


class Child:
    """``python -m MODULE ARGUMENTS`` with stdout as JSON lines and stderr into a log file.

    It inherits no credentials: only the variables that a Python process needs. The thread that makes it must
    outlive it, since the kernel ties the child to that thread (see leash).
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        environment = {
            key: value for key, value in os.environ.items() if key in _PASSED_ON or key.startswith(_PASSED_PREFIXES)
        }
        python = [sys.executable, "-P", "-m"]
        leash = [*python, "worker.leash", str(os.getpid())]
        self._log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*leash, *python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, name="child-events", daemon=True).start()

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the child has no stdout")
        for line in self._process.stdout:
            try:
                event = json.loads(line)
                json.dumps(event, ensure_ascii=False).encode()
            except ValueError:
                continue  # half a line of a killed child, or text that could be stored nowhere
            if isinstance(event, dict):
                self._events.put(event)
        self._events.put(None)

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """The next event, or None after ``timeout`` seconds or at the end; see ``ended``."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None:
            self._process.wait()
        return event

    @property
    def ended(self) -> bool:
        """Whether the process is dead and every event was taken."""
        return self._process.returncode is not None and self._events.empty()

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
        """SIGKILL to the whole group; returns when the process is dead."""
        with contextlib.suppress(ProcessLookupError):  # it is dead, and so is its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """The last lines of what it wrote to stderr."""
        content = self._log.read_bytes()[-_TAIL_BYTES:]
        return content.decode(errors="replace")
