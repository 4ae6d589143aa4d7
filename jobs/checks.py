"""What a service needs, asked in one way by /readyz and by temperd doctor: each says what is wrong, or None.

One that has more to say than that nothing is wrong answers ``Fine``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import JobsError
from jobs.upkeep import LATELY_SECONDS, Upkeep

if TYPE_CHECKING:  # who asks for something else does not load it
    from jobs.storage import Storage

OFF = "off"  # of a sandbox: the operator understands the risk


class Fine(str):
    """An answer that is shown in place of "ok", and tells of nothing wrong."""

    __slots__ = ()


def is_wrong(answer: str | None) -> bool:
    """Whether a check found something wrong."""
    return answer is not None and not isinstance(answer, Fine)


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


def sandbox(upkeep: Upkeep) -> str | None:
    """What holds jobs in, at the workers: they look themselves, and do not work without unless they were told to."""
    try:
        seen = upkeep.sandboxes(LATELY_SECONDS)
    except SQLAlchemyError as error:
        return f"the database does not answer ({type(error).__name__})"
    off = sorted(name for name, held_by in seen.items() if held_by == OFF)
    if off:
        return Fine(f"off on {', '.join(off)}")
    return Fine(f"ok ({'; '.join(sorted(set(seen.values())))})") if seen else Fine("no worker was seen lately")
