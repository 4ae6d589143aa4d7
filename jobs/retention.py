"""What goes by itself once its time is over, by the database's clock."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select

from jobs.database import now
from jobs.limits import NO_LIMITS, Quota
from jobs.session import Sessions
from jobs.states import FINAL
from jobs.storage import Stored
from jobs.tables import Job, Upload
from jobs.uploads import needed, release


class Retention(Sessions):
    """Over all tenants."""

    def expired_jobs(self, keep_seconds: float | None) -> list[tuple[str, str]]:
        """(tenant, job) of those that ended too long ago; ``keep_seconds``: for those that say nothing themselves."""
        over = Job.finished_at + func.coalesce(Job.keep_seconds, keep_seconds) < now()
        with self._read() as session:
            rows = session.execute(select(Job.tenant_id, Job.id).where(Job.state.in_(FINAL), over))
            return [(tenant_id, job_id) for tenant_id, job_id in rows]

    def expire_uploads(self) -> list[Stored]:
        """Forget those whose time is over and that no job needs which has not ended; returns the free files."""
        freed: list[Stored] = []
        with self._read() as session:
            rows = [*session.execute(select(Upload.tenant_id, Upload.id).where(_over()))]
        for tenant_id, upload_id in rows:
            with self._write() as session:
                Quota(session, tenant_id, NO_LIMITS)
                locked = select(Upload).where(Upload.id == upload_id, _over()).with_for_update()
                upload = session.scalars(locked).first()
                # asked under the lock that a new job would have to take
                if upload is not None and not needed(session, upload_id):
                    freed += release(session, upload)
        return freed


def _over() -> ColumnElement[bool]:
    return (Upload.expires_at < now()) & Upload.deleted_at.is_(None)
