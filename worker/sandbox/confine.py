"""Puts this process under rules, for good; whatever it becomes by exec is under them too."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from worker.sandbox import places, seccomp, syscalls
from worker.sandbox.errors import SandboxError
from worker.sandbox.kernel import drop_capabilities, no_new_privileges
from worker.sandbox.landlock import BIND_TCP, CONNECT_TCP, DEVICE, EXECUTE, READ, READ_DIR, READ_FILE, WRITE, Landlock
from worker.sandbox.network import enter_own_network, ephemeral_ports
from worker.sandbox.rules import Rules

_ANY_PORT = 0  # for bind: the kernel chooses


def confine(rules: Rules) -> None:
    """Limits, files, ports, privileges, system calls.

    Raises: SandboxError.
    """
    if sys.platform != "linux":
        raise SandboxError(f"there is no sandbox on {sys.platform}, only on Linux")
    _limit(rules.limits)
    try:
        no_new_privileges()
        landlock = Landlock()
        _allow_files(landlock, rules)
        if rules.kind == "ranks":
            enter_own_network()
            landlock.allow_ports([_ANY_PORT], BIND_TCP)
            landlock.allow_ports(ephemeral_ports(), CONNECT_TCP)
        drop_capabilities()
        landlock.restrict()
        seccomp.restrict(rules.kind)
    except OSError as error:
        raise SandboxError(f"the kernel refuses a part of it: {error}") from error


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # SIGXCPU says what it was; SIGKILL comes a second later
        resource.setrlimit(kind, (most, most + 1 if name == "cpu" and most == value else most))
    if "data" in limits:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # with numpy it comes, and each of its threads would reserve memory


def _allow_files(landlock: Landlock, rules: Rules) -> None:
    landlock.allow(Path(sys.executable).resolve(), READ_FILE | EXECUTE)
    if machine := syscalls.machine():
        landlock.allow(machine.loader, READ_FILE | EXECUTE)
    for path in places.code(rules.hidden):
        landlock.allow(path, READ)
    for path in places.listed():
        landlock.allow(path, READ_DIR)
    # other processes' environments and memory are closed even where /proc is open: Landlock sees to that as well
    more = places.OF_RANKS if rules.kind == "ranks" else (f"/proc/{os.getpid()}",)
    for path in places.there([*places.SYSTEM, *more]):
        landlock.allow(path, READ)
    landlock.allow(os.devnull, DEVICE)
    if rules.kind != "ingest":
        _allow_gpus(landlock, rules)
    for name in rules.read:
        landlock.allow(name, READ)
    for name in rules.write:
        landlock.allow(name, WRITE)


def _allow_gpus(landlock: Landlock, rules: Rules) -> None:
    devices = places.gpus()
    for path in devices:
        landlock.allow(path, DEVICE)
    for path in places.there(places.OF_GPUS) if devices else []:
        landlock.allow(path, READ)
    if devices and rules.kind == "ranks":
        landlock.allow("/dev/shm", WRITE)  # noqa: S108 - nccl's ranks meet there
