"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_MOST_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522


def call(number: int, *arguments: object) -> int:
    """``syscall(2)``. Raises: OSError."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return checked(_libc.syscall(ctypes.c_long(number), *words))


def checked(result: int) -> int:
    """What a function of libc returned. Raises: OSError, if that is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def unshare(flags: int) -> None:
    """``unshare(2)``: Python has it from 3.12 on. Raises: OSError."""
    checked(_libc.unshare(flags))


def no_new_privileges() -> None:
    """No program that this process becomes has more rights than it; without that an ordinary user has no sandbox."""
    checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def drop_capabilities() -> None:
    """Root becomes an ordinary user who owns root's files; for others nothing changes."""
    for number in range(_MOST_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # who may not has none to drop: see no_new_privileges
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))
