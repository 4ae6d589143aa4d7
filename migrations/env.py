"""Alembic's entry: runs the migrations on the configured database."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import event, text

from jobs.database import open_database, writing
from jobs.tables import Base

_LOCK = 0x7E3E9E12  # any number that is ours

engine = writing(open_database(context.config.get_main_option("sqlalchemy.url") or "", hurried=False))
sqlite = engine.dialect.name == "sqlite"


def _foreign_keys_off(connection: Any, _record: Any) -> None:
    """SQLite alters a table by making it anew: dropping the old one would take the rows that refer to it along."""
    connection.execute("PRAGMA foreign_keys=OFF")


if sqlite:
    event.listen(engine, "connect", _foreign_keys_off)

with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=sqlite)
    with context.begin_transaction():
        if not sqlite:  # two services that start at once take turns; SQLite's transaction is a lock of its own
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()
engine.dispose()
