"""Alembic's entry: runs the migrations on the configured database."""

from __future__ import annotations

from alembic import context

from jobs.database import open_database, writing
from jobs.tables import Base

with writing(open_database(context.config.get_main_option("sqlalchemy.url") or "")).connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
