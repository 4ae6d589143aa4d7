"""Keys, tenants, sessions and idempotency; every job and upload belongs to a tenant.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OWNED = ("uploads", "jobs")


def upgrade() -> None:
    """What is there already goes to the tenant "default"."""
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("max_queued", sa.Integer(), nullable=True),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_upload_bytes", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="tenants_name"),
    )
    op.bulk_insert(tenants, [{"id": "default", "name": "default", "created_at": time.time()}])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("last_used_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_keys_by_prefix", "api_keys", ["prefix"])
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"]),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("tenant_id", "key"),
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_at"])
    for table in _OWNED:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("tenant_id", sa.String(), nullable=False, server_default="default"))
            batch.create_foreign_key(f"{table}_tenant", "tenants", ["tenant_id"], ["id"])
        with op.batch_alter_table(table) as batch:  # the default was for the rows there are
            batch.alter_column("tenant_id", existing_type=sa.String(), server_default=None)
    op.create_index("uploads_by_tenant", "uploads", ["tenant_id", "sha256"])
    op.create_index("jobs_by_tenant", "jobs", ["tenant_id", "created_at", "id"])
    op.drop_index("jobs_by_age", table_name="jobs")


def downgrade() -> None:
    """Jobs of all tenants are kept, and seen by whoever reaches the service: the version before knows no keys."""
    op.create_index("jobs_by_age", "jobs", ["created_at", "id"])
    for table in _OWNED:
        op.drop_index(f"{table}_by_tenant", table_name=table)
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"{table}_tenant", type_="foreignkey")
            batch.drop_column("tenant_id")
    for table in ("idempotency", "sessions", "api_keys", "tenants"):
        op.drop_table(table)
