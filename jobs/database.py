"""The engine, its transactions, and the database's clock; SQLite for one person, Postgres for a team."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, Float, create_engine, event, make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

_POSTGRES = {
    "connect_timeout": 5,
    # a network that swallows packets has to become an error well within a lease
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
# a process that was stopped in the middle of a transaction holds a lock: it may not keep a job from going on
_LIMITS = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=5s"
# it is away, or hung up on a transaction that took too long, an internal error to psycopg; others are our faults
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
PATIENCE = 12.0  # seconds for an answer; longer than the server's own limit on a statement


class _Impatient(psycopg.Connection[Any]):
    """A server that is frozen, and not gone, ends nothing by itself: its silence is taken for a hang-up."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Called by psycopg for every exchange with the server. Raises: OperationalError."""
        try:
            return super().wait(gen, interval, PATIENCE if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer for {PATIENCE:.0f} s") from error


class now(ColumnElement[float]):  # noqa: N801 - reads as an SQL function
    """Seconds since 1970 by the database's clock, at the moment of the statement."""

    inherit_cache = True
    type = Float()


@compiles(now, "sqlite")
def _sqlite_now(_element: now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgres_now(_element: now, _compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


def open_database(url: str, *, hurried: bool = True) -> Engine:
    """An engine for ``sqlite:///FILE`` or ``postgresql://...``.

    ``hurried``: what takes longer than seconds becomes an error; migrations take as long as they take.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address)
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine
    # a connection of before a restart is replaced before it is used
    address = address.set(drivername="postgresql+psycopg")
    if not hurried:
        return create_engine(address, connect_args=_POSTGRES)
    options = {**_POSTGRES, "options": _LIMITS}
    engine = create_engine(address, pool_pre_ping=True, pool_timeout=PATIENCE, connect_args=options)
    event.listen(engine, "do_connect", _connect)
    return engine


def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> _Impatient:
    return _Impatient.connect(*arguments, **options)


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write.

    SQLite's lock is taken at their begin: one that starts by reading and then writes fails with "database is locked"
    under load, however long the timeout; one that begins as a writer waits its turn.
    """
    return engine.execution_options(writing=True)


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun here, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
