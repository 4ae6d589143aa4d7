"""Notices a Celery that no longer listens: after a broken connection to Redis it can stay idle for ever, unsaid.

Seen with Celery 5.7, about once in thirty broken connections; celery/celery issues 8030, 8091, 10205 tell of the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from jobs.upkeep import Upkeep
from worker.flag import Flag


class Queue(Protocol):
    """What can be rung through; see worker.queue.Doorbell."""

    def check(self) -> None:
        """Raises: RedisError if it cannot."""
        ...


class Hearing:
    """An idle worker, a queue that answers and a job that waits in it, again and again: then nobody listens."""

    def __init__(
        self,
        upkeep: Upkeep,
        bell: Queue,
        *,
        queues: Sequence[str],
        busy: Flag,
        seconds: float,
        deaf: Callable[[], None],
    ) -> None:
        """``busy``: a ring was heard and is being answered. ``deaf``: called once that was not so for ``seconds``."""
        self._upkeep, self._bell, self._queues = upkeep, bell, queues
        self._busy, self._seconds, self._deaf = busy, seconds, deaf
        self._since: float | None = None

    def round(self) -> None:
        """Look once. Raises: RedisError, SQLAlchemyError; then nothing was learned."""
        since, self._since = self._since, None
        if self._busy.is_set() or not self._upkeep.waits(self._queues):
            return
        self._bell.check()
        self._since = time.monotonic() if since is None else since
        if time.monotonic() - self._since > self._seconds:
            self._deaf()
