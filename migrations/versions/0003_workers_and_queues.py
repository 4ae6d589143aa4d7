"""Many workers: queues, pauses, logs, the outbox, who is there and who does what for all.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("queue", sa.String(), nullable=False, server_default="cpu"))
        batch.add_column(sa.Column("lost", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("max_seconds", sa.Float(), nullable=True))
        batch.add_column(sa.Column("used_seconds", sa.Float(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("claimed_at", sa.Float(), nullable=True))
        batch.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs") as batch:  # the defaults were for the rows there are
        batch.alter_column("queue", existing_type=sa.String(), server_default=None)
        batch.alter_column("lost", existing_type=sa.Integer(), server_default=None)
        batch.alter_column("used_seconds", existing_type=sa.Float(), server_default=None)
        batch.alter_column("pause_requested", existing_type=sa.Boolean(), server_default=None)
    op.create_index("jobs_by_checkpoint", "jobs", ["checkpoint_upload"])
    op.create_index("jobs_by_data", "jobs", ["data_upload"])
    if op.get_context().dialect.name != "sqlite":  # its integers are as long as they have to be
        op.alter_column("events", "id", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
    identity = op.create_table("identity", sa.Column("id", sa.String(), nullable=False), sa.PrimaryKeyConstraint("id"))
    op.bulk_insert(identity, [{"id": secrets.token_hex(16)}])
    totals = op.create_table(
        "totals",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.bulk_insert(totals, [{"name": name, "value": 0.0} for name in ("started", "waited", "lost")])
    op.create_table(
        "logs",
        sa.Column("id", _COUNTER, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("logs_by_job", "logs", ["job_id", "id"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("delivered_at", sa.Float(), nullable=True),
        sa.Column("given_up_at", sa.Float(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("outbox_by_due", "outbox", ["delivered_at", "given_up_at", "due_at"])
    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("queues", sa.String(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "duties",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    """Paused jobs cannot be kept as such: they wait again."""
    for table in ("duties", "workers", "outbox", "logs", "identity", "totals"):
        op.drop_table(table)
    op.drop_index("jobs_by_checkpoint", table_name="jobs")
    op.drop_index("jobs_by_data", table_name="jobs")
    if op.get_context().dialect.name != "sqlite":
        op.alter_column("events", "id", type_=sa.Integer(), existing_type=sa.BigInteger(), existing_nullable=False)
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'paused'")
    with op.batch_alter_table("jobs") as batch:
        for column in ("lost", "max_seconds", "used_seconds", "claimed_at", "pause_requested", "queue"):
            batch.drop_column(column)
