"""Ends an engine whose supervisor is silent: one that was stopped (SIGSTOP) renews no lease, and kills nobody."""

from __future__ import annotations

import math
import os
import select
import signal
import struct
import time

DEADLINE = struct.Struct("d")


def watch(wire: int) -> None:
    """Fork a watchdog of this process, which is about to become an engine; it stays in its process group.

    Args:
        wire: where deadlines come in, by time.monotonic; at the last of them, or when nobody holds the other end any
            more, the whole group is killed.
    """
    engine = os.getpid()
    if os.fork() != 0:
        os.close(wire)
        return
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # meant for the engine, which has a state to save
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)  # the supervisor listens until the last writer of the engine's stdout is gone
        if os.getppid() == engine and _silent(os.pidfd_open(engine), wire):
            os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(0)


def _silent(engine: int, wire: int) -> bool:
    """Whether the last deadline came; False once the engine has ended."""
    poll = select.poll()
    for descriptor in (engine, wire):
        poll.register(descriptor, select.POLLIN)
    deadline = math.inf
    while time.monotonic() < deadline:
        left = None if deadline == math.inf else max(0.0, 1000 * (deadline - time.monotonic()))
        ready = dict(poll.poll(left))
        if engine in ready:
            return False
        if wire in ready:
            told = os.read(wire, 1024 * DEADLINE.size)
            if not told:
                return True
            (deadline,) = DEADLINE.unpack(told[-DEADLINE.size :])
    return True
