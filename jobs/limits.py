"""What a tenant may take of the service."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.errors import StorageQuotaError, TooManyQueuedJobsError, UploadTooLargeError
from jobs.states import State
from jobs.tables import Artifact, Job, Tenant, Upload

_WAITING = (State.QUEUED, State.PAUSED)


@dataclass(frozen=True)
class Limits:
    """None: as much as there is. ``max_queued`` jobs wait or are paused; ``max_bytes`` are of uploads and results."""

    max_queued: int | None = None
    max_bytes: int | None = None
    max_upload_bytes: int | None = None
    requests_per_minute: int | None = None

    def of(self, tenant: Tenant | Limits) -> Limits:
        """These, where the tenant has none of its own."""
        return Limits(
            _first(tenant.max_queued, self.max_queued),
            _first(tenant.max_bytes, self.max_bytes),
            _first(tenant.max_upload_bytes, self.max_upload_bytes),
            _first(tenant.requests_per_minute, self.requests_per_minute),
        )


NO_LIMITS = Limits()


class Quota:
    """A tenant's row, locked until the transaction ends: who comes at the same moment waits, and then counts anew.

    A transaction that takes this lock takes it before those of jobs and uploads.
    """

    def __init__(self, session: Session, tenant_id: str, defaults: Limits) -> None:
        # not against those who only refer to the row, as every insertion of a job does
        query = select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)
        tenant = session.scalars(query).one()
        self._session, self._tenant_id, self.limits = session, tenant_id, defaults.of(tenant)

    def check_queue(self) -> None:
        """One more job may wait. Raises: TooManyQueuedJobsError."""
        most = self.limits.max_queued
        if most is None:
            return
        query = select(func.count()).where(Job.tenant_id == self._tenant_id, Job.state.in_(_WAITING))
        if (self._session.scalar(query) or 0) >= most:
            raise TooManyQueuedJobsError(
                f"this tenant may have {most} jobs waiting or paused",
                "wait until one has started, or cancel one",
            )

    def check_bytes(self, *sizes: int) -> None:
        """There is room for new files of these sizes. Raises: UploadTooLargeError, StorageQuotaError."""
        largest = self.limits.max_upload_bytes
        if largest is not None and any(size > largest for size in sizes):
            raise UploadTooLargeError(largest)
        most = self.limits.max_bytes
        if most is None or not sizes:
            return
        used = stored_bytes(self._session, self._tenant_id)
        if used + sum(sizes) > most:
            raise StorageQuotaError(
                f"this tenant may store {most} bytes; {used} are taken, and {sum(sizes)} more are needed",
                "DELETE /jobs/ID and DELETE /uploads/ID free some",
            )


def stored_bytes(session: Session, tenant_id: str) -> int:
    """What the uploads, training states and results of a tenant take."""
    mine = (Upload.tenant_id == tenant_id, Upload.deleted_at.is_(None))
    contents = select(func.max(Upload.received).label("size")).where(*mine).group_by(Upload.content).subquery()
    uploads = select(func.sum(contents.c.size))  # what several uploads share counts once
    files = select(func.sum(Artifact.size)).join(Job, Job.id == Artifact.job_id).where(Job.tenant_id == tenant_id)
    return int(session.scalar(uploads) or 0) + int(session.scalar(files) or 0)


def _first(own: int | None, usual: int | None) -> int | None:
    return usual if own is None else own
