"""Whether the kernel killed something here for want of memory: a child that dies so cannot say it itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def kills(own: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> int:
    """So many times up to now, in this process's control group; 0 where nobody counts."""
    return sum(_counted(path) for path in _counters(own, groups))


def _counters(own: Path, groups: Path) -> Iterator[Path]:
    """Where versions 2 and 1 of control groups count; a machine may have both."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield groups / path.strip("/") / "memory.events"
        elif controllers == "memory":
            yield groups / "memory" / path.strip("/") / "memory.oom_control"


def _counted(path: Path) -> int:
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))
