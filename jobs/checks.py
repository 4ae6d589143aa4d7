"""What a service needs, asked in one way by /readyz and by temperd doctor: each says what is wrong, or None."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import JobsError
from jobs.upkeep import LATELY_SECONDS, Upkeep

if TYPE_CHECKING:  # who asks for something else does not load it
    from jobs.storage import Storage


def database(upkeep: Upkeep) -> str | None:
    """It answers."""
    try:
        upkeep.clock()
    except SQLAlchemyError as error:
        return f"it does not answer ({type(error).__name__})"
    return None


def store(storage: Storage) -> str | None:
    """It can be listed."""
    try:
        storage.check()
    except JobsError as error:
        return str(error)
    return None


def workers(upkeep: Upkeep, queue: str) -> str | None:
    """One of them serves a queue."""
    try:
        serving = {name for queues in upkeep.workers(LATELY_SECONDS).values() for name in queues}
    except SQLAlchemyError as error:
        return f"the database does not answer ({type(error).__name__})"
    return None if queue in serving else f"none was seen lately for queue {queue!r}"
