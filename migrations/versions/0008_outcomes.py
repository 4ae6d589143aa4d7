"""What came out of a job, kept beside its state for lists, which do not read reports.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)
_JOBS = sa.table("jobs", sa.column("id", sa.String), sa.column("report", _JSON), sa.column("outcome", _JSON))


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("outcome", _JSON, nullable=True))
    connection = op.get_bind()
    for job_id in connection.scalars(sa.select(_JOBS.c.id).where(_JOBS.c.report.is_not(None))).all():
        report: dict[str, Any] = connection.execute(sa.select(_JOBS.c.report).where(_JOBS.c.id == job_id)).scalar_one()
        sides = {
            side: None if report[side] is None else {name: report[side][name] for name in ("clean", "robust")}
            for side in ("before", "after")
        }
        values = {"outcome": {"verdict": report["verdict"]["kind"], **sides}}
        connection.execute(sa.update(_JOBS).where(_JOBS.c.id == job_id).values(values))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "outcome")
