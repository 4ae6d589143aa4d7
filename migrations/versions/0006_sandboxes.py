"""Workers say what holds their jobs in.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("DELETE FROM workers")  # they tell again within seconds
    with op.batch_alter_table("workers") as batch:
        batch.add_column(sa.Column("sandbox", sa.String(), nullable=False))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("workers") as batch:
        batch.drop_column("sandbox")
