"""The engine, its transactions, and the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement


class now(ColumnElement[float]):  # noqa: N801 - reads as an SQL function
    """Seconds since 1970 by the database's clock, at the moment of the statement."""

    inherit_cache = True
    type = Float()


@compiles(now, "sqlite")
def _sqlite_now(_element: now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def open_database(url: str) -> Engine:
    """An engine whose write transactions take SQLite's lock at once.

    A transaction that starts by reading and then writes fails with "database is locked" under load, however
    long the timeout; one that begins as a writer waits its turn. ``writing`` marks those.
    """
    engine = create_engine(url)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write."""
    return engine.execution_options(writing=True)


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun here, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
