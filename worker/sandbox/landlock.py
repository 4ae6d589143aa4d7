"""Landlock: which files, ports and processes this process may reach.

https://docs.kernel.org/userspace-api/landlock.html. The kernel checks it for root as for anybody else, and it can only
be tightened afterwards. What an older kernel does not know is left out; ``seccomp`` closes some of that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from worker.sandbox.errors import SandboxError
from worker.sandbox.kernel import call

# the same numbers on all machines
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, MAKE_DIR, MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL = IOCTL_DEV * 2 - 1
_SINCE = {REFER: 2, TRUNCATE: 3, IOCTL_DEV: 5}
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE  # no links, no devices
DEVICE = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV

BIND_TCP, CONNECT_TCP = 1, 2
_PORTS_SINCE, _SCOPES_SINCE = 4, 6
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _NetPort(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def version() -> int:
    """The newest interface that this kernel has. Raises: SandboxError, if it has none."""
    try:
        return call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        why = {
            errno.ENOSYS: "the kernel has no Landlock: it needs Linux 5.13 or newer, built with it",
            errno.EOPNOTSUPP: "Landlock is switched off: add it to the kernel's parameter lsm=",
            errno.EPERM: "Landlock is refused: the container's seccomp profile is older than Docker 23, containerd 1.6",
        }
        raise SandboxError(why.get(error.errno or 0, f"Landlock does not answer: {error.strerror}")) from error


class Landlock:
    """Rights by path and port, until ``restrict``; after that, of this process and all that come from it."""

    def __init__(self) -> None:
        """Nothing is allowed. Raises: SandboxError."""
        self._abi = version()
        self._files = _ALL & ~sum(right for right, since in _SINCE.items() if self._abi < since)
        ruleset = _Ruleset(self._files)
        if self._abi >= _PORTS_SINCE:
            ruleset.ports = BIND_TCP | CONNECT_TCP
        if self._abi >= _SCOPES_SINCE:
            ruleset.scopes = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL
        size = 8 * (1 + (self._abi >= _PORTS_SINCE) + (self._abi >= _SCOPES_SINCE))
        self._ruleset = call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)

    def allow(self, path: str | Path, rights: int) -> None:
        """On a file, or on a folder and all that is or will be in it. Raises: OSError, if it is not there."""
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(where).st_mode):
                rights &= _OF_FILES
            rule = _PathBeneath(rights & self._files, where)
            call(_ADD_RULE, self._ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(where)

    def allow_ports(self, ports: Iterable[int], rights: int) -> None:
        """Of any address. Kernels before 6.7 (interface 4) do not ask."""
        if self._abi >= _PORTS_SINCE:
            for port in ports:
                call(_ADD_RULE, self._ruleset, _NET_PORT, ctypes.byref(_NetPort(rights, port)), 0)

    def restrict(self) -> None:
        """From now on, for good."""
        call(_RESTRICT_SELF, self._ruleset, 0)
        os.close(self._ruleset)
