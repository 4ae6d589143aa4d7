"""Uploads in parts, that can be resumed, shared and expire; jobs that expire.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LOST = (
    "SELECT id FROM uploads WHERE finished_at IS NULL OR deleted_at IS NOT NULL OR content <> id"
    " OR (SELECT count(*) FROM parts WHERE parts.content = uploads.content) <> 1"
)


def upgrade() -> None:
    """Apply. What was uploaded before becomes a content of one part."""
    op.create_table(
        "parts",
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("content", "offset"),
    )
    op.create_index("parts_by_key", "parts", ["key"])
    op.execute('INSERT INTO parts (content, "offset", size, key) SELECT id, 0, size, key FROM uploads')
    with op.batch_alter_table("uploads") as batch:
        batch.add_column(sa.Column("purpose", sa.String(), nullable=True))
        batch.add_column(sa.Column("tus_metadata", sa.String(), nullable=False, server_default=""))
        batch.add_column(sa.Column("content", sa.String(), nullable=False, server_default=""))
        batch.add_column(sa.Column("received", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("standalone", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("hashed_by", sa.String(), nullable=True))
        for name in ("keep_seconds", "hashing_until", "finished_at", "expires_at", "deleted_at"):
            batch.add_column(sa.Column(name, sa.Float(), nullable=True))
        batch.alter_column("size", existing_type=sa.BigInteger(), nullable=True)
        batch.alter_column("sha256", existing_type=sa.String(), nullable=True)
    op.execute("UPDATE uploads SET content = id, received = size, finished_at = created_at")
    with op.batch_alter_table("uploads") as batch:
        batch.drop_column("key")
        batch.alter_column("tus_metadata", existing_type=sa.String(), server_default=None)
        batch.alter_column("content", existing_type=sa.String(), server_default=None)
        batch.alter_column("received", existing_type=sa.BigInteger(), server_default=None)
        batch.alter_column("standalone", existing_type=sa.Boolean(), server_default=None)
    op.create_index("uploads_by_content", "uploads", ["content"])
    op.create_index("uploads_by_age", "uploads", ["tenant_id", "created_at", "id"])
    op.create_index("uploads_by_expiry", "uploads", ["expires_at"])
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("keep_seconds", sa.Float(), nullable=True))


def downgrade() -> None:
    """Only files of one part can be kept, each for one upload; others go, and the jobs that started from them."""
    for table, column in (("jobs", "checkpoint_upload"), ("jobs", "data_upload"), ("uploads", "id")):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({_LOST})")  # noqa: S608 - constants
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("keep_seconds")
    for name in ("content", "age", "expiry"):
        op.drop_index(f"uploads_by_{name}", table_name="uploads")
    with op.batch_alter_table("uploads") as batch:
        batch.add_column(sa.Column("key", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE uploads SET key = (SELECT key FROM parts WHERE parts.content = uploads.content)")
    with op.batch_alter_table("uploads") as batch:
        batch.alter_column("key", existing_type=sa.String(), server_default=None)
        batch.alter_column("size", existing_type=sa.BigInteger(), nullable=False)
        batch.alter_column("sha256", existing_type=sa.String(), nullable=False)
        for name in (
            "purpose", "tus_metadata", "content", "received", "standalone", "hashed_by",
            "keep_seconds", "hashing_until", "finished_at", "expires_at", "deleted_at",
        ):  # fmt: skip
            batch.drop_column(name)
    op.drop_table("parts")
