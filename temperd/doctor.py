"""temperd doctor: what a team's service needs, checked one by one from where it runs.

A container runs this every minute: it loads no torch, and each check only what it needs itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from jobs import checks
from jobs.database import open_database
from jobs.settings import Settings
from jobs.upkeep import LATELY_SECONDS, Upkeep

_TIMEOUT = 2.0
_PAUSE = 2.0


class Doctor:
    """Each check says what is wrong, or not: see jobs.checks."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine, self._upkeep = settings, engine, Upkeep(engine)

    def database(self) -> str | None:
        """It answers."""
        return checks.database(self._upkeep)

    def schema(self) -> str | None:
        """The migrations have run."""
        from temperd.schema import is_current

        return self.database() or (None if is_current(self._engine) else "not the newest: run temperd migrate")

    def broker(self) -> str | None:
        """Redis answers."""
        from redis import Redis
        from redis.exceptions import RedisError

        try:
            with Redis.from_url(
                self._settings.broker_url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
            ) as redis:
                redis.ping()
        except (RedisError, OSError) as error:
            return f"it does not answer ({type(error).__name__}); jobs are accepted, and wait"
        return None

    def store(self) -> str | None:
        """It can be listed."""
        from jobs.storage import Storage

        return checks.store(Storage(self._settings.store))

    def workers(self) -> str | None:
        """One of them serves the queue of jobs that name none."""
        return checks.workers(self._upkeep, self._settings.queue)

    def sandbox(self) -> str | None:
        """A child can be held in, where this runs."""
        from worker.sandbox.errors import SandboxError
        from worker.sandbox.probe import require

        try:
            held_by = require(self._settings)
        except SandboxError as error:
            return str(error)
        return checks.Fine(held_by if held_by == checks.OFF else f"ok ({held_by})")

    def here(self) -> str | None:
        """A worker or a reconciler of this host was seen lately."""
        try:
            seen = self._upkeep.workers(LATELY_SECONDS)
        except SQLAlchemyError as error:
            return f"the database does not answer ({type(error).__name__})"
        host = socket.gethostname()
        if any(name.rpartition("-")[0] == host for name in seen):
            return None
        return f"no worker or reconciler on {host} was seen within {LATELY_SECONDS:.0f} s"


CHECKS: Mapping[str, Callable[[Doctor], str | None]] = {
    "database": Doctor.database,
    "schema": Doctor.schema,
    "broker": Doctor.broker,
    "store": Doctor.store,
    "workers": Doctor.workers,
    "sandbox": Doctor.sandbox,
    "here": Doctor.here,
}
OF_THE_SERVICE = tuple(name for name in CHECKS if name != "here")


def examine(settings: Settings, names: Sequence[str], wait: float = 0.0) -> dict[str, str | None]:
    """What each check says, by name; asked again until all is well, for at most ``wait`` seconds."""
    engine = open_database(settings.database)
    doctor, deadline = Doctor(settings, engine), time.monotonic() + wait
    try:
        while True:
            found = {name: CHECKS[name](doctor) for name in names}
            if not any(map(checks.is_wrong, found.values())) or time.monotonic() >= deadline:
                return found
            time.sleep(_PAUSE)
    finally:
        engine.dispose()
