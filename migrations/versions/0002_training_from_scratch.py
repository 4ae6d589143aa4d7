"""Training from scratch: a job need not have a checkpoint.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the column be null."""
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("checkpoint_upload", existing_type=sa.String(), nullable=True)


def downgrade() -> None:
    """Jobs without a checkpoint cannot be kept."""
    for table in ("artifacts", "epochs", "events", "results"):
        op.execute(
            f"DELETE FROM {table} WHERE job_id IN (SELECT id FROM jobs WHERE checkpoint_upload IS NULL)"  # noqa: S608
        )
    op.execute("DELETE FROM jobs WHERE checkpoint_upload IS NULL")
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("checkpoint_upload", existing_type=sa.String(), nullable=False)
