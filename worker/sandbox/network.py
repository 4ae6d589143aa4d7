"""A network of the ranks' own: nothing but a loopback interface that no other process is on."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from worker.sandbox.kernel import unshare

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE = struct.Struct("16sh14x")
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def enter_own_network() -> bool:
    """Whether that was possible; if not, nothing has changed.

    Many systems let no ordinary user make a namespace, or let it be made and then do nothing in it, so a process of
    its own tries first.
    """
    trial = os.fork()
    if trial == 0:
        try:
            _enter()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(trial, 0)[1] != 0:
        return False
    _enter()
    return True


def _enter() -> None:
    user, group = os.geteuid(), os.getegid()
    unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        _, flags = _INTERFACE.unpack(fcntl.ioctl(asking, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0)))
        fcntl.ioctl(asking, _SIOCSIFFLAGS, _INTERFACE.pack(b"lo", flags | _IFF_UP))


def ephemeral_ports() -> range:
    """Those that the kernel gives to who asks for any: ranks listen on them, and hardly any service does."""
    first, last = (int(word) for word in _EPHEMERAL.read_text().split())
    return range(first, last + 1)
