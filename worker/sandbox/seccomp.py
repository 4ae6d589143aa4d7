"""seccomp: system calls that a child may not make, as a filter that the kernel runs at each of them.

A list of what is refused, not of what is allowed: torch, CUDA and glibc call what they call, and files are Landlock's.
What is newer than this list is answered as by an older kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
from collections.abc import Sequence

from worker.sandbox import syscalls
from worker.sandbox.errors import SandboxError
from worker.sandbox.kernel import call
from worker.sandbox.rules import Kind

Instruction = tuple[int, int, int, int]  # code, steps if true, steps if false, operand
Case = tuple[tuple[int, int, int], ...]  # (argument, mask, value): all of them hold

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE: Instruction = (_RETURN, 0, 0, _ERROR | errno.EPERM)
_UNKNOWN: Instruction = (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
_NUMBER, _AUDIT, _ARGUMENTS = 0, 4, 16  # offsets in the kernel's struct seccomp_data; little-endian machines both

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_ALLOW_SPECULATION = 4  # kernels before 5.16 would slow the whole training down, against leaks within the process

_WHOLE = 0xFFFFFFFF
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020080
_SHARED_AND_ANONYMOUS, _SHARED, _ANONYMOUS = 0x21, 0x01, 0x20
_TYPE = 0xF  # of a socket, without its flags
_NETLINK_ROUTE = 0

_THREADS_ONLY: list[Case] = [((0, _CLONE_THREAD, _CLONE_THREAD),)]
_NO_NAMESPACES: list[Case] = [((0, _CLONE_NAMESPACES, 0),)]
_PAIRS: list[Case] = [((0, _WHOLE, socket.AF_UNIX), (1, _TYPE, socket.SOCK_STREAM))]
# gloo and nccl talk by TCP and ask for the interfaces; nccl hands memory over by datagrams
_SOCKETS_OF_RANKS: list[Case] = [
    ((0, _WHOLE, socket.AF_INET), (1, _TYPE, socket.SOCK_STREAM)),
    ((0, _WHOLE, socket.AF_INET6), (1, _TYPE, socket.SOCK_STREAM)),
    ((0, _WHOLE, socket.AF_NETLINK), (2, _WHOLE, _NETLINK_ROUTE)),
    ((0, _WHOLE, socket.AF_UNIX), (1, _TYPE, socket.SOCK_DGRAM)),
]
# who is signalled when a file is ready: on older kernels anybody of the same user, with any signal
_NOT_WITH: dict[str, tuple[int, tuple[int, ...]]] = {
    "fcntl": (1, (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    "ioctl": (1, (0x8901, 0x8902)),  # FIOSETOWN, SIOCSPGRP
}  # by system call: the number of an argument, and values that it may not have
# memory that RLIMIT_DATA does not count
_NO_UNCOUNTED_MEMORY: list[Case] = [
    ((3, _SHARED_AND_ANONYMOUS, kind),) for kind in (_SHARED, _ANONYMOUS, 0)
]  # fmt: skip


def cases(kind: Kind, pid: int) -> dict[str, list[Case]]:
    """By system call, the arguments that are allowed; none: it is refused. What is not named is allowed."""
    itself: list[Case] = [((0, _WHOLE, pid),)]
    nobody_else: list[Case] = [((0, _WHOLE, 0),), *itself]
    if kind == "ranks":
        return {
            "clone": _NO_NAMESPACES,
            "socket": _SOCKETS_OF_RANKS,
            "socketpair": _PAIRS,
            "prlimit64": [((0, _WHOLE, 0),)],
            "sched_setaffinity": [((0, _WHOLE, 0),)],
        }
    alone = {
        "clone": _THREADS_ONLY,
        "fork": [],
        "vfork": [],
        "setsid": [],
        "setpgid": [],
        "kill": itself,
        "tgkill": itself,
        "prlimit64": nobody_else,
        "sched_setaffinity": nobody_else,
        "socket": [],
    }
    if kind == "engine":
        return {**alone, "socketpair": _PAIRS}
    return {**alone, "socketpair": [], "memfd_create": [], "mmap": _NO_UNCOUNTED_MEMORY}


def program(kind: Kind, pid: int, name: str) -> list[Instruction]:
    """The filter for a process with this number, on a machine of ``syscalls.MACHINES``."""
    conditional, numbers = cases(kind, pid), syscalls.sometimes(name)
    found: list[Instruction] = [
        (_LOAD, 0, 0, _AUDIT),
        (_EQUAL, 1, 0, syscalls.MACHINES[name].audit),
        (_RETURN, 0, 0, _KILL_PROCESS),  # a call by another machine's numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, syscalls.NEWEST + 1),  # and those of x32, which are larger
        _UNKNOWN,
        (_EQUAL, 0, 1, numbers["clone3"]),
        _UNKNOWN,  # its flags lie in memory, where a filter cannot look; glibc then takes clone
    ]
    for number in syscalls.never(name).values():
        found += [(_EQUAL, 0, 1, number), _REFUSE]
    for call_name, allowed in conditional.items():
        if call_name in numbers:
            block = _block(allowed)
            found += [(_EQUAL, 0, len(block), numbers[call_name]), *block]
    for call_name, (argument, values) in _NOT_WITH.items():
        refused = [step for value in values for step in ((_EQUAL, 0, 1, value), _REFUSE)]
        block = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *refused, (_RETURN, 0, 0, _ALLOW)]
        found += [(_EQUAL, 0, len(block), numbers[call_name]), *block]
    return [*found, (_RETURN, 0, 0, _ALLOW)]


def _block(allowed: Sequence[Case]) -> list[Instruction]:
    """Decides; its first failing condition leads to the next case."""
    found: list[Instruction] = []
    for case in allowed:
        left = 3 * len(case)
        for argument, mask, value in case:
            left -= 3
            found += [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_AND, 0, 0, mask), (_EQUAL, 0, left + 1, value)]
        found.append((_RETURN, 0, 0, _ALLOW))
    return [*found, _REFUSE]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict(kind: Kind) -> None:
    """From now on, for good, for this process and all that come from it. Raises: SandboxError."""
    name = platform.machine()
    if name not in syscalls.MACHINES:
        raise SandboxError(f"seccomp is not set up for {name}: {' and '.join(syscalls.MACHINES)} are")
    install(program(kind, os.getpid(), name))


def install(instructions: Sequence[Instruction]) -> None:
    """Put a filter before every system call. Raises: SandboxError."""
    packed = b"".join(
        code.to_bytes(2, "little") + bytes((true, false)) + operand.to_bytes(4, "little")
        for code, true, false, operand in instructions
    )
    filter_ = _Program(len(instructions), packed)
    try:
        call(_SECCOMP[platform.machine()], _SET_MODE_FILTER, _ALLOW_SPECULATION, ctypes.byref(filter_))
    except OSError as error:
        raise SandboxError(f"seccomp does not take the filter: {error.strerror}") from error
