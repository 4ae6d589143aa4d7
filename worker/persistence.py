"""Writes that go on until they are written: the child works meanwhile, and the lease says when to give up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.database import AWAY
from jobs.errors import StorageError

_log = logging.getLogger(__name__)
_PAUSE = 0.5
_TICK = 0.1

T = TypeVar("T")


def persist(write: Callable[[], T], heed: Callable[[], None]) -> T:
    """Repeat a write to the database until it succeeds, or ``heed``, asked all the while, raises.

    A write whose answer was lost may have happened: events may then be told twice, an end is refused as no longer ours.
    """
    while True:
        try:
            return aside(write, heed)
        except AWAY as error:
            _log.warning("not written yet: %s", error)
            time.sleep(_PAUSE)


def transfer(copy: Callable[[], T], heed: Callable[[], None], patience: float) -> T:
    """Repeat a copy from or to the store until it succeeds, or ``heed``, asked all the while, raises.

    Raises: StorageError if the store has failed for ``patience`` seconds.
    """
    ends = time.monotonic() + patience
    while True:
        try:
            return aside(copy, heed)
        except StorageError as error:
            if time.monotonic() > ends:
                raise
            _log.warning("not copied yet: %s", error)
            time.sleep(_PAUSE)


def aside(work: Callable[[], T], heed: Callable[[], None]) -> T:
    """Do something that may hang in a thread of its own; if ``heed`` raises meanwhile, nobody waits for it any more."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, where the work was asked for
            failed.append(error)

    heed()
    thread = threading.Thread(target=run, name="aside", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TICK)
        if thread.is_alive():
            heed()
    if failed:
        raise failed[0]
    return done[0]
