"""Uploads: files that come in pieces, are resumed, shared within a tenant, and go away again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CursorResult, Engine, Update, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from jobs.database import now
from jobs.errors import (
    UploadInUseError,
    UploadLengthError,
    UploadLockedError,
    UploadNotFoundError,
    UploadOffsetError,
    UploadUnfinishedError,
)
from jobs.limits import NO_LIMITS, Limits, Quota
from jobs.session import Sessions, new_id
from jobs.states import FINAL
from jobs.storage import Stored
from jobs.tables import Job, Part, Upload

_MAX_PARTS = 10_000
_JOBLESS_SECONDS = 3600.0
HASHING_SECONDS = 30.0


@dataclass(frozen=True)
class NewUpload:
    """What is known of a file before its first byte. ``size``: bytes, None if nobody knows yet.

    ``standalone``: sent for itself; what comes with a job goes with the last job that uses it. ``keep_seconds``: how
    long it stays once it is finished, None: until it is deleted.
    """

    filename: str
    size: int | None
    standalone: bool
    purpose: str | None = None
    tus_metadata: str = ""
    keep_seconds: float | None = None


@dataclass(frozen=True)
class NewPart:
    """Bytes that were stored under ``key`` and that no row knows yet."""

    offset: int
    size: int
    key: str
    crc32: int


class UploadRepository(Sessions):
    """The uploads of one tenant: those of others are as unknown as if they did not exist."""

    def __init__(
        self, engine: Engine, tenant_id: str, *, limits: Limits = NO_LIMITS, unfinished_seconds: float
    ) -> None:
        """``limits``: for tenants that have none of their own.

        ``unfinished_seconds``: how long an upload waits for its next byte before it expires.
        """
        super().__init__(engine)
        self._tenant_id, self._limits, self._unfinished_seconds = tenant_id, limits, unfinished_seconds

    @property
    def tenant_id(self) -> str:
        """Whose they are."""
        return self._tenant_id

    # --- sending

    def begin(self, new: NewUpload) -> Upload:
        """An upload without a byte."""
        upload_id = new_id("up")
        with self._write() as session:
            upload = Upload(
                id=upload_id,
                tenant_id=self._tenant_id,
                filename=new.filename,
                purpose=new.purpose,
                tus_metadata=new.tus_metadata,
                content=upload_id,
                size=new.size,
                received=0,
                standalone=new.standalone,
                keep_seconds=new.keep_seconds,
                created_at=now(),
                expires_at=now() + self._unfinished_seconds,
            )
            session.add(upload)
            session.flush()
            session.refresh(upload)
        return upload

    def set_size(self, upload_id: str, size: int) -> None:
        """Say how long it will be, once. Raises: UploadOffsetError if it is longer already, or was said otherwise."""
        with self._write() as session:
            upload = self._get(session, upload_id, lock=True)
            if upload.size not in (None, size) or upload.received > size:
                raise UploadOffsetError(f"upload {upload_id} has another length, or more bytes already")
            upload.size = size

    def check_room(self, size: int) -> None:
        """So many bytes may come. Raises: StorageQuotaError, UploadTooLargeError."""
        with self._write() as session:
            Quota(session, self._tenant_id, self._limits).check_bytes(size)

    def append(self, upload_id: str, parts: Sequence[NewPart], offset: int, sha256: str | None = None) -> list[Stored]:
        """Stored bytes become the upload's, all or none, if it still ends at ``offset``: of two that race, one wins.

        With ``sha256``, of the whole, it is finished by that. If the tenant has the same bytes already these are taken
        in place of its own: returns the files that nothing refers to any more.
        Raises: UploadLockedError for the one that was slower; UploadLengthError; StorageQuotaError.
        """
        added = sum(part.size for part in parts)
        with self._write() as session:
            quota = Quota(session, self._tenant_id, self._limits)
            upload = self._get(session, upload_id, lock=True)
            if upload.finished_at is not None or upload.received != offset:
                raise UploadLockedError(f"another request sent bytes to upload {upload_id} from {offset} on")
            if upload.size is not None and offset + added > upload.size:
                raise UploadLengthError(f"upload {upload_id} was announced with {upload.size} bytes")
            if parts and offset and _count_parts(session, upload.content) + len(parts) > _MAX_PARTS:
                hint = "start again, and send more bytes with each request"
                raise UploadLengthError(f"upload {upload_id} came in more than {_MAX_PARTS} pieces", hint)
            quota.check_bytes(added)
            session.add_all(Part(content=upload.content, **vars(part)) for part in parts)
            upload.received += added
            upload.expires_at = now() + self._unfinished_seconds
            session.flush()
            return _finish(session, upload, sha256) if sha256 is not None else []

    def claim_hashing(self, upload_id: str, offset: int, who: str) -> None:
        """Only one may read it all again; to be said anew within HASHING_SECONDS. Raises: UploadLockedError."""
        free = or_(Upload.hashed_by.is_(None), Upload.hashed_by == who, Upload.hashing_until < now())
        mine = update(Upload).where(Upload.id == upload_id, Upload.received == offset, free)
        with self._write() as session:
            self._get(session, upload_id)
            if not _changed(session, mine.values(hashed_by=who, hashing_until=now() + HASHING_SECONDS)):
                raise UploadLockedError(f"another request is about to finish upload {upload_id}")

    # --- looking

    def get(self, upload_id: str) -> Upload:
        """One upload of a tenant. Raises: UploadNotFoundError, also for one that has expired unfinished."""
        with self._read() as session:
            return self._get(session, upload_id)

    def finished(self, upload_id: str) -> Upload:
        """One that a job can use. Raises: UploadNotFoundError, UploadUnfinishedError."""
        upload = self.get(upload_id)
        if upload.finished_at is None:
            size = "an unknown number" if upload.size is None else upload.size
            raise UploadUnfinishedError(
                f"upload {upload_id} has {upload.received} of {size} bytes",
                f"send the rest: PATCH /uploads/{upload_id}",
            )
        return upload

    def page(self, *, limit: int, after: tuple[float, str] | None) -> list[Upload]:
        """Newest first; ``after`` is (created_at, id) of the last one seen."""
        query = select(Upload).where(Upload.tenant_id == self._tenant_id, is_there()).limit(limit)
        query = query.order_by(Upload.created_at.desc(), Upload.id.desc())
        if after:
            query = query.where(tuple_(Upload.created_at, Upload.id) < after)
        with self._read() as session:
            return [*session.scalars(query)]

    def parts(self, upload: Upload) -> list[Part]:
        """Where its bytes are, in order."""
        with self._read() as session:
            return [*session.scalars(select(Part).where(Part.content == upload.content).order_by(Part.offset))]

    # --- going away

    def delete(self, upload_id: str) -> list[Stored]:
        """Forget an upload, also an unfinished one; returns the files that nothing refers to any more.

        Raises: UploadNotFoundError; UploadInUseError while a job that has not ended needs it.
        """
        with self._write() as session:
            Quota(session, self._tenant_id, self._limits)
            upload = self._get(session, upload_id, lock=True)
            if job_id := needed(session, upload_id):
                raise UploadInUseError(f"job {job_id} needs upload {upload_id}", f"POST /jobs/{job_id}/cancel first")
            return release(session, upload)

    def _get(self, session: Session, upload_id: str, *, lock: bool = False) -> Upload:
        """``lock``: nobody else changes it until the transaction ends."""
        query = select(Upload).where(Upload.id == upload_id, Upload.tenant_id == self._tenant_id, is_there())
        upload = session.scalars(query.with_for_update() if lock else query).first()
        if upload is None:
            raise UploadNotFoundError
        return upload


def release(session: Session, upload: Upload) -> list[Stored]:
    """Take an upload's bytes away; its row stays while a job names it. Returns the files that no other upload shares.

    The caller has locked the tenant by Quota, so that nobody begins to share these bytes now, and then the upload.
    """
    freed: list[Stored] = []
    shared = select(Upload.id).where(
        Upload.content == upload.content, Upload.id != upload.id, Upload.deleted_at.is_(None)
    )
    if session.scalar(shared.limit(1)) is None:
        freed = _drop_parts(session, upload)
    if session.scalar(select(Job.id).where(uses(upload.id)).limit(1)) is None:
        session.delete(upload)
    else:
        upload.deleted_at = now()
    session.flush()
    return freed


def _finish(session: Session, upload: Upload, sha256: str) -> list[Stored]:
    """All bytes are there. The caller has locked the tenant by Quota."""
    same = (Upload.tenant_id == upload.tenant_id, Upload.sha256 == sha256, Upload.deleted_at.is_(None))
    content = session.scalar(select(Upload.content).where(*same).limit(1))
    freed: list[Stored] = []
    if content is not None:
        freed = _drop_parts(session, upload)
        upload.content = content
    upload.sha256, upload.size = sha256, upload.received
    upload.hashed_by = upload.hashing_until = None
    upload.finished_at = now()
    # what came with a job is that job's once it is created; without one it goes
    keep = upload.keep_seconds if upload.standalone else _JOBLESS_SECONDS
    upload.expires_at = now() + keep if keep is not None else None
    session.flush()
    return freed


def _drop_parts(session: Session, upload: Upload) -> list[Stored]:
    parts = session.scalars(select(Part).where(Part.content == upload.content))
    freed = [Stored(part.key, upload.sha256 or "", part.size) for part in parts]
    session.execute(delete(Part).where(Part.content == upload.content))
    return freed


def is_there() -> ColumnElement[bool]:
    """Uploads that are neither deleted nor expired unfinished; a finished one is there until the sweeper takes it."""
    waits = or_(Upload.finished_at.is_not(None), Upload.expires_at > now())
    return Upload.deleted_at.is_(None) & waits


def needed(session: Session, upload_id: str) -> str | None:
    """A job that has not ended and starts from an upload, if there is one."""
    return session.scalar(select(Job.id).where(uses(upload_id), Job.state.not_in(FINAL)).limit(1))


def uses(upload_id: str) -> ColumnElement[bool]:
    """Jobs that start from an upload."""
    return or_(Job.checkpoint_upload == upload_id, Job.data_upload == upload_id)


def _count_parts(session: Session, content: str) -> int:
    return session.scalar(select(func.count()).where(Part.content == content)) or 0


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement)
    return isinstance(result, CursorResult) and result.rowcount == 1
