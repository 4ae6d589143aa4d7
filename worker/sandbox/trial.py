"""python -m worker.sandbox.trial SECRET OWN: tries what the sandbox must refuse, and what it must allow.

Prints the names of what was possible, as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

OWN = "write into its own folder"


def main(secret: str, own: str) -> None:
    """Try everything."""
    attempts: dict[str, Callable[[], object]] = {
        OWN: lambda: (Path(own) / "file").write_text("own"),
        "read another's file": lambda: Path(secret).read_text(),
        "write another's file": lambda: Path(secret).write_text(""),
        "write beside it": lambda: Path(secret).with_name("new").write_text(""),
        "change another's mode": lambda: Path(secret).chmod(0o777),
        "open a socket": lambda: socket.socket(socket.AF_INET).close(),
        "start a process": _start,
    }
    print(json.dumps([name for name, attempt in attempts.items() if _possible(attempt)]))  # noqa: T201


def _possible(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _start() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
