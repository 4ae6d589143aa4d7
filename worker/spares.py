"""Processes that wait beside ingest to help it: started before the sandbox closes, since nobody in it may fork."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

VARIABLE = "TEMPER_INGEST_SPARES"  # of ingest.pool
COMMAND = (sys.executable, "-P", "-m", "ingest.helper")


def start(count: int, leash: Callable[[], None], confine: Callable[[], None]) -> None:
    """Fork them, and name the pipes to them in this process's environment.

    One costs next to nothing while it waits: it becomes Python with its libraries once it is told something, and
    ends when nobody can tell it anything any more.

    Args:
        leash: ties a process to this one.
        confine: puts it under the rules.
    """
    pipes = [(*os.pipe(), *os.pipe()) for _ in range(count)]
    for jobs, _, _, results in pipes:
        if os.fork() == 0:
            try:
                leash()
                for descriptor in {end for pipe in pipes for end in pipe} - {jobs, results}:
                    os.close(descriptor)
                _help(jobs, results, confine)
            finally:
                os._exit(1)
    ours = []
    for jobs, ask, answer, results in pipes:
        os.close(jobs)
        os.close(results)
        os.set_inheritable(ask, True)
        os.set_inheritable(answer, True)
        ours.append(f"{ask},{answer}")
    os.environ[VARIABLE] = ";".join(ours)


def _help(jobs: int, results: int, confine: Callable[[], None]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)  # the supervisor listens until the last writer of ingest's stdout is gone
    poll = select.poll()
    poll.register(jobs, select.POLLIN)
    if not poll.poll()[0][1] & select.POLLIN:
        return
    confine()
    for descriptor in (jobs, results):
        os.set_inheritable(descriptor, True)
    os.execv(COMMAND[0], [*COMMAND, str(jobs), str(results)])  # noqa: S606 - no shell is wanted
