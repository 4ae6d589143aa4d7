"""A flag that processes share, without a lock: a process that dies, or a signal handler, at any moment harms nobody."""

from __future__ import annotations

import mmap
from typing import Protocol


class Flag(Protocol):
    """threading.Event, or one that processes share."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...


class SharedFlag:
    """One byte of memory that a fork shares."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        """For all processes."""
        self._page[0] = 1

    def clear(self) -> None:
        """For all processes."""
        self._page[0] = 0

    def is_set(self) -> bool:
        """Whether any of them has set it."""
        return self._page[0] == 1
