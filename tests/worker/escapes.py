"""python -m tests.worker.escapes PLACES: tries ways out; prints by its name how each ended, "possible" or an error.

PLACES: JSON, of files and sockets that are none of its own, and of the "groups" to try; "free" where nothing holds it
in: then each is tried in a process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.sandbox.syscalls import NEWEST, never, sometimes

PLACES = json.loads(sys.argv[1])
STORE, OTHER, HOME, OWN = (Path(PLACES[name]) for name in ("store", "other", "home", "own"))
STORED, UPLOAD = STORE / "file", OWN.parent / "checkpoint"
PARENT, NEIGHBOUR = os.getppid(), PLACES["neighbour"]
X32 = 0x40000000
NUMBERS = {**never(os.uname().machine), **sometimes(os.uname().machine)}
libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: Any) -> None:
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def checked(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as each:
        each.settimeout(5)
        each.connect(address)


def bind(family: int, address: Any) -> None:
    with socket.socket(family) as each:
        each.bind(address)
        each.listen()


def send(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as each:
        each.sendto(b"secret", address)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def own_program() -> None:
    program = OWN / "program"
    with os.fdopen(os.open(program, os.O_CREAT | os.O_WRONLY, 0o700), "w") as file:
        file.write("#!/bin/sh\n")
    os.execv(program, [str(program)])


def mount() -> None:
    checked(libc.mount(b"none", os.fsencode(OWN), b"tmpfs", 0, None))
    checked(libc.umount2(os.fsencode(OWN), 0))


FILES: dict[str, Callable[[], object]] = {
    "read /etc/shadow": Path("/etc/shadow").read_bytes,
    "read /etc/passwd": Path("/etc/passwd").read_bytes,
    "list /": lambda: list(Path("/").iterdir()),
    "list the store": lambda: list(STORE.iterdir()),
    "read the store": STORED.read_bytes,
    "read another attempt": lambda: (OTHER / "checkpoint").read_bytes(),
    "list another attempt": lambda: list(OTHER.iterdir()),
    "read in HOME": lambda: (HOME / ".netrc").read_bytes(),
    "list HOME": lambda: list(HOME.iterdir()),
    "read the parent's environment": lambda: Path(f"/proc/{PARENT}/environ").read_bytes(),
    "read the parent's memory": lambda: Path(f"/proc/{PARENT}/mem").open("rb").close(),
    "write into the store": lambda: STORED.write_bytes(b"x"),
    "write beside it": lambda: (STORE / "new").write_bytes(b"x"),
    "write into another attempt": lambda: (OTHER / "spec.json").write_bytes(b"x"),
    "write into /tmp": lambda: Path(PLACES["temporary"]).write_bytes(b"x"),
    "write into the code": lambda: Path(__file__).with_name("planted.py").write_bytes(b"x"),
    "write its spec": lambda: (OWN.parent / "spec.json").write_bytes(b"x"),
    "write beside its folders": lambda: (OWN.parent / "new").write_bytes(b"x"),
    "remove from the store": STORED.unlink,
    "move out of the store": lambda: STORED.rename(OWN / "moved"),
    "link from the store": lambda: (OWN / "linked").hardlink_to(STORED),
    "leave a link": lambda: (OWN / "symlink").symlink_to(STORED),
    "leave a socket": lambda: os.mknod(OWN / "socket", 0o140644),
    "make a device": lambda: os.mknod(OWN / "null", 0o20666, os.makedev(1, 3)),
    "truncate by name": lambda: os.truncate(STORED, 0),
    "change a mode": lambda: STORED.chmod(0o777),
    "change the mode of code": lambda: os.chmod(os.open(__file__, os.O_RDONLY), 0o644),  # noqa: PTH101
    "change an owner": lambda: os.chown(STORED, os.getuid(), os.getgid()),
    "change times": lambda: os.utime(STORED),
    "change attributes": lambda: os.setxattr(STORED, "user.x", b"x"),
    "write its upload": lambda: UPLOAD.write_bytes(b"x"),
    "watch a folder": lambda: checked(libc.inotify_init()),
}
SOCKETS: dict[str, Callable[[], object]] = {
    "connect to a port": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PLACES["port"])),
    "connect by IPv6": lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", PLACES["port6"])),
    "listen on a port": lambda: bind(socket.AF_INET, ("127.0.0.1", PLACES["unused port"])),
    "ask a name server": lambda: send(socket.AF_INET, ("127.0.0.1", 53)),
    "connect to a socket file": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, PLACES["socket"]),
    "connect to an abstract socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, PLACES["abstract"]),
    "send to an abstract socket": lambda: send(socket.AF_UNIX, PLACES["abstract datagrams"]),
    "send from one of a pair": lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"x", PLACES["datagrams"]),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
}
PROCESSES: dict[str, Callable[[], object]] = {
    "become a shell": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 0"]),
    "start a shell": lambda: subprocess.run(["/bin/sh", "-c", "exit 0"], check=True),
    "start a program that it made": own_program,
    "trace the parent": lambda: checked(libc.ptrace(0x4206, PARENT, None, None)),  # PTRACE_SEIZE
    "signal the parent": lambda: os.kill(PARENT, 0),
    "queue a signal": lambda: signal.pidfd_send_signal(os.pidfd_open(PARENT), 0),
    "limit the parent": lambda: resource.prlimit(PARENT, resource.RLIMIT_CPU),
    "slow a neighbour": lambda: os.setpriority(os.PRIO_PROCESS, NEIGHBOUR, os.getpriority(os.PRIO_PROCESS, NEIGHBOUR)),
    "keep a neighbour to a core": lambda: os.sched_setaffinity(NEIGHBOUR, os.sched_getaffinity(NEIGHBOUR)),
    "have the parent signalled": lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, PARENT),
    "have it signalled by another call": lambda: fcntl.fcntl(os.pipe()[0], 15, struct.pack("ii", 1, PARENT)),
    "choose the signal": lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, signal.SIGKILL),
    "have it signalled by a device": lambda: fcntl.ioctl(0, 0x8901, struct.pack("i", PARENT)),
    "have it signalled by a socket": lambda: fcntl.ioctl(0, 0x8902, struct.pack("i", PARENT)),
    "make namespaces": lambda: checked(libc.unshare(0x10000000)),
    "change the root": lambda: os.chroot("/"),
    "mount": mount,
    "tune the clock": lambda: checked(libc.adjtimex(ctypes.create_string_buffer(512))),
    "share memory": lambda: checked(libc.shmget(0, 4096, 0o1600)),
    "use keys": lambda: call(NUMBERS["keyctl"], 0, -3, 0),
    "use io_uring": lambda: call(NUMBERS["io_uring_setup"], 4, ctypes.create_string_buffer(256)),
    "load a program into the kernel": lambda: call(NUMBERS["bpf"], 0, ctypes.create_string_buffer(128), 128),
    "count events": lambda: call(NUMBERS["perf_event_open"], ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "handle faults": lambda: call(NUMBERS["userfaultfd"], 0),
    "call by x32": lambda: call(X32 + 39),
    "call what is too new": lambda: call(NEWEST + 1),
}
ALONE: dict[str, Callable[[], object]] = {
    "fork": fork,
    "start itself": lambda: subprocess.run([sys.executable, "-P", "-c", "pass"], check=True),
    "clone by the newest call": lambda: call(NUMBERS["clone3"], ctypes.create_string_buffer(88), 88),
    "leave its session": os.setsid,
    "leave its group": lambda: os.setpgid(0, 0),
    "signal its group": lambda: os.kill(0, 0),
    "take any port": lambda: bind(socket.AF_INET, ("127.0.0.1", 0)),
    "send to a socket file": lambda: send(socket.AF_UNIX, PLACES["datagrams"]),
}
OF_INGEST: dict[str, Callable[[], object]] = {
    "make a pair of sockets": socket.socketpair,
    "make a file in memory": lambda: os.memfd_create("x"),
    "make memory that is shared": lambda: mmap.mmap(-1, 4096),
}
OF_ENGINES: dict[str, Callable[[], object]] = {"read the upload": UPLOAD.read_bytes}


GROUPS = {
    "files": FILES, "sockets": SOCKETS, "of ingest": OF_INGEST, "of engines": OF_ENGINES, "alone": ALONE,
    "processes": PROCESSES,
}  # fmt: skip


def ended(way: Callable[[], object]) -> str:
    try:
        way()
    except subprocess.CalledProcessError as error:
        return f"status {error.returncode}"
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else str(error)
    return "possible"


def ended_alone(way: Callable[[], object]) -> str:
    """In a process of its own, which may become another program, and with all files there."""
    STORED.write_bytes(b"stored")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ended(way).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        found = told.read()
    os.waitpid(child, 0)
    return found or "possible"


def ends() -> str:
    """How each way ended, as JSON."""
    end = ended_alone if PLACES["free"] else ended
    return json.dumps({name: end(way) for group in PLACES["groups"] for name, way in GROUPS[group].items()})


if __name__ == "__main__":
    sys.stdout.write(ends())
