"""Alembic's entry: runs the migrations on the configured database."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import event

from jobs.database import open_database, writing
from jobs.tables import Base

engine = writing(open_database(context.config.get_main_option("sqlalchemy.url") or ""))


@event.listens_for(engine, "connect")
def _foreign_keys_off(connection: Any, _record: Any) -> None:
    """SQLite alters a table by making it anew: dropping the old one would take the rows that refer to it along."""
    connection.execute("PRAGMA foreign_keys=OFF")


with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
