"""python -m worker.leash PARENT WIRE RULES COMMAND...: becomes COMMAND, tied to the life of its parent, and held in.

The kernel kills this process when the parent thread ends, whatever the reason, so a killed worker leaves no
child behind. The setting survives exec. WIRE is a file descriptor for a watchdog, or "-" for none; the watchdog is not
held in, so that COMMAND can do nothing to it. RULES are of worker.sandbox, or "-" for none. A lower priority keeps the
API responsive beside training.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from worker import spares
from worker.sandbox.confine import confine
from worker.sandbox.errors import SandboxError
from worker.sandbox.rules import Rules
from worker.watchdog import watch

_PR_SET_PDEATHSIG = 1
_NICE = 10
_MOST_SPARES = 8


def die_with_parent(parent: int) -> None:
    """From now on the kernel kills this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died before the child started")


def main(arguments: list[str]) -> None:
    """Put on the leash, then exec."""
    parent, wire, rules, *command = arguments
    die_with_parent(int(parent))
    if wire != "-":
        watch(int(wire))
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # where the kernel shares the cores by session, and only then by process
        Path("/proc/self/autogroup").write_text(str(_NICE))
    if rules != "-":
        _hold_in(Rules.from_json(rules))
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _hold_in(rules: Rules) -> None:
    cores, itself = len(os.sched_getaffinity(0)), os.getpid()
    try:
        if rules.kind == "ingest" and cores > 1:
            spares.start(min(_MOST_SPARES, cores), lambda: die_with_parent(itself), lambda: confine(rules))
        confine(rules)
    except SandboxError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
