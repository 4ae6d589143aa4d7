"""The jobs of one tenant, as their users see them: submitted, looked at, cancelled, paused, resumed, deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, and_, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from jobs.database import now
from jobs.errors import JobNotFoundError, StorageFullError, UploadNotFoundError, WrongStateError
from jobs.idempotency import Repeatable, settle
from jobs.limits import NO_LIMITS, Limits, Quota
from jobs.session import Sessions, drop_state, move, new_id
from jobs.states import FINAL, State
from jobs.storage import Stored
from jobs.tables import Artifact, Event, Job, LogChunk, Total, Upload
from jobs.uploads import release, uses


@dataclass(frozen=True)
class NewJob:
    """What a job starts from; ``spec`` is opaque here."""

    spec: dict[str, Any]
    queue: str
    defense: str
    name: str | None
    tags: dict[str, str]
    epochs: int
    checkpoint_upload: str | None
    data_upload: str | None
    max_seconds: float | None = None
    keep_seconds: float | None = None


@dataclass(frozen=True)
class Once:
    """What makes a request with an Idempotency-Key happen once: its answer, from job and queue position, is kept."""

    request: Repeatable
    fingerprint: str
    answer: Callable[[Job, int], dict[str, Any]]


class JobRepository(Sessions):
    """Jobs and uploads of one tenant in a database. Those of others are as unknown here as what never was."""

    def __init__(self, engine: Engine, tenant_id: str, *, limits: Limits = NO_LIMITS, webhooks: bool = False) -> None:
        """``limits``: for tenants that have none of their own."""
        super().__init__(engine, webhooks=webhooks)
        self._tenant_id, self._limits = tenant_id, limits

    # --- submitting

    def upload(self, upload_id: str) -> Upload:
        """One upload. Raises: UploadNotFoundError."""
        with self._read() as session:
            return self._get_upload(session, upload_id)

    def create(self, new: NewJob, once: Once | None = None) -> Job:
        """Store a job as queued.

        Raises: UploadNotFoundError if a file that it refers to was deleted meanwhile; TooManyQueuedJobsError;
            IdempotencyInProgressError if a repetition has overtaken it.
        """
        job_id = new_id("job")
        with self._write() as session:
            Quota(session, self._tenant_id, self._limits).check_queue()
            for upload_id in _sorted(new.checkpoint_upload, new.data_upload):
                # locked: a deletion must not take it away before this job refers to it
                upload = self._get_upload(session, upload_id, lock=True)
                if upload.deleted_at is not None:
                    raise UploadNotFoundError
                if not upload.standalone:
                    upload.expires_at = None  # it goes with its last job
            job = Job(
                id=job_id,
                tenant_id=self._tenant_id,
                name=new.name,
                tags=new.tags,
                state=State.QUEUED,
                queue=new.queue,
                defense=new.defense,
                spec=new.spec,
                checkpoint_upload=new.checkpoint_upload,
                data_upload=new.data_upload,
                max_seconds=new.max_seconds,
                keep_seconds=new.keep_seconds,
                progress={"epoch": 0, "epochs": new.epochs, "fraction": 0.0, "eta_seconds": None},
                created_at=now(),
                updated_at=now(),
            )
            session.add(job)
            session.flush()
            self._announce(session, job_id)
            session.refresh(job)
            if once is not None:
                answer = once.answer(job, _position(session, job))
                settle(session, self._tenant_id, once.request, once.fingerprint, job_id, answer)
        return job

    # --- looking

    def job(self, job_id: str) -> Job:
        """One job, without its report. Raises: JobNotFoundError."""
        with self._read() as session:
            return self._get_job(session, job_id)

    def report(self, job_id: str) -> tuple[Job, dict[str, Any] | None]:
        """One job with its report. Raises: JobNotFoundError."""
        with self._read() as session:
            job = self._get_job(session, job_id)
            return job, job.report

    def queue_position(self, job: Job) -> int | None:
        """1 for the job that is next in its queue; None if it is not queued."""
        if job.state != State.QUEUED:
            return None
        with self._read() as session:
            return _position(session, job)

    def page(
        self, *, state: str | None, defense: str | None, limit: int, after: tuple[float, str] | None, specs: bool = True
    ) -> list[Job]:
        """Newest first; ``after`` is (created_at, id) of the last one seen. Without ``specs`` theirs are not read."""
        query = (
            select(Job)
            .where(Job.tenant_id == self._tenant_id)
            .order_by(Job.created_at.desc(), Job.id.desc())
            .limit(limit)
        )
        if state:
            query = query.where(Job.state == state)
        if defense:
            query = query.where(Job.defense == defense)
        if after:
            query = query.where(tuple_(Job.created_at, Job.id) < after)
        if not specs:
            query = query.options(defer(Job.spec, raiseload=True))
        with self._read() as session:
            return [*session.scalars(query)]

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """Events with ids greater than ``after``, oldest first."""
        query = select(Event).where(self._of(Event.job_id, job_id), Event.id > after).order_by(Event.id).limit(limit)
        with self._read() as session:
            return [*session.scalars(query)]

    def log(self, job_id: str, *, after: int = 0) -> list[LogChunk]:
        """Pieces of the training log with ids greater than ``after``, oldest first."""
        query = select(LogChunk).where(self._of(LogChunk.job_id, job_id), LogChunk.id > after).order_by(LogChunk.id)
        with self._read() as session:
            return [*session.scalars(query)]

    def artifacts(self, job_id: str, kind: str) -> dict[str, Artifact]:
        """Files of one kind by name."""
        query = select(Artifact).where(self._of(Artifact.job_id, job_id), Artifact.kind == kind)
        with self._read() as session:
            return {artifact.name: artifact for artifact in session.scalars(query)}

    # --- ending, pausing and going on, from outside

    def request_cancel(self, job_id: str) -> Job:
        """Cancel at once what no process works at; else ask the owner, who says cancelled once the process is dead.

        Raises: WrongStateError if it ended in another way.
        """
        with self._write() as session:
            job = self._get_job(session, job_id, lock=True)
            if job.state in (State.QUEUED, State.PAUSED):
                move(session, State.CANCELLED, Job.id == job_id, finished_at=now(), cancel_requested=True)
                drop_state(session, job_id)  # the files themselves are swept later
                self._announce(session, job_id)
            elif job.state == State.RUNNING:
                job.cancel_requested = True
            elif job.state != State.CANCELLED:
                raise WrongStateError(f"job {job_id} has {job.state} already")
            return _fresh(session, job)

    def request_pause(self, job_id: str) -> Job:
        """Ask the owner to save the state and let go. Raises: WrongStateError if it does not run."""
        with self._write() as session:
            job = self._get_job(session, job_id, lock=True)
            if job.state == State.RUNNING:
                job.pause_requested = True
            elif job.state != State.PAUSED:
                hint = f"POST /jobs/{job_id}/cancel keeps it from starting" if job.state == State.QUEUED else ""
                raise WrongStateError(f"job {job_id} is {job.state}: only a running job can be paused", hint)
            return _fresh(session, job)

    def resume(self, job_id: str) -> Job:
        """Put a job back into its queue, at the place of its age: one that was paused, or that no room was left for.

        Raises: WrongStateError for others; TooManyQueuedJobsError.
        """
        with self._write() as session:
            quota = Quota(session, self._tenant_id, self._limits)
            job = self._get_job(session, job_id, lock=True)
            if job.state == State.PAUSED:
                move(session, State.QUEUED, Job.id == job_id)
                self._announce(session, job_id)
            elif job.state == State.FAILED and (job.failure or {}).get("code") == StorageFullError.code:
                quota.check_queue()
                _check_uploads(session, job)
                forgotten = {"failure": None, "finished_at": None, "cancel_requested": False, "pause_requested": False}
                move(session, State.QUEUED, Job.id == job_id, stalled=0, **forgotten)
                self._announce(session, job_id)
            elif job.state == State.RUNNING and job.pause_requested:
                job.pause_requested = False  # it had not stopped yet
            elif job.state not in (State.QUEUED, State.RUNNING):
                raise WrongStateError(f"job {job_id} is {job.state}: only a paused job can be resumed")
            return _fresh(session, job)

    def delete(self, job_id: str) -> list[Stored]:
        """Forget a finished job; returns the files that nothing refers to any more."""
        with self._write() as session:
            Quota(session, self._tenant_id, self._limits)
            job = self._get_job(session, job_id, lock=True)
            if job.state not in FINAL:
                raise WrongStateError(f"job {job_id} is {job.state}", f"POST /jobs/{job_id}/cancel first")
            freed = [Stored(a.key, a.sha256, a.size) for a in session.scalars(_artifacts_of(job_id))]
            uploads = _sorted(job.checkpoint_upload, job.data_upload)
            _remember(session, job)
            session.delete(job)
            session.flush()
            for upload_id in uploads:
                upload = session.get_one(Upload, upload_id, with_for_update=True)
                if session.scalar(select(Job.id).where(uses(upload_id)).limit(1)) is not None:
                    continue
                if upload.deleted_at is not None:
                    session.delete(upload)
                elif not upload.standalone:
                    freed += release(session, upload)
            return freed

    # --- of this tenant, or of nobody

    def _get_job(self, session: Session, job_id: str, *, lock: bool = False) -> Job:
        """``lock``: nobody else changes it until the transaction ends. Raises: JobNotFoundError."""
        query = select(Job).where(Job.id == job_id, Job.tenant_id == self._tenant_id)
        job = session.scalars(query.with_for_update() if lock else query).first()
        if job is None:
            raise JobNotFoundError
        return job

    def _get_upload(self, session: Session, upload_id: str, *, lock: bool = False) -> Upload:
        """As ``_get_job``. Raises: UploadNotFoundError."""
        query = select(Upload).where(Upload.id == upload_id, Upload.tenant_id == self._tenant_id)
        upload = session.scalars(query.with_for_update() if lock else query).first()
        if upload is None:
            raise UploadNotFoundError
        return upload

    def _of(self, column: InstrumentedAttribute[str], job_id: str) -> ColumnElement[bool]:
        """Rows of a job, if it is this tenant's."""
        mine = select(Job.id).where(Job.id == job_id, Job.tenant_id == self._tenant_id)
        return and_(column == job_id, mine.exists())


def _artifacts_of(job_id: str) -> Select[Artifact]:
    """All files of a job."""
    return select(Artifact).where(Artifact.job_id == job_id)


def _remember(session: Session, job: Job) -> None:
    """Sums over all jobs only grow, also when one is deleted."""
    started = job.started_at is not None
    waited = (job.started_at or 0.0) - job.created_at if started else 0.0
    for name, value in (("started", float(started)), ("waited", waited), ("lost", float(job.lost))):
        session.get_one(Total, name, with_for_update=True).value += value


def _sorted(*upload_ids: str | None) -> list[str]:
    """In the one order in which uploads are locked, so that no two transactions wait for each other."""
    return sorted({upload_id for upload_id in upload_ids if upload_id is not None})


def _check_uploads(session: Session, job: Job) -> None:
    for upload_id in _sorted(job.checkpoint_upload, job.data_upload):
        if session.get_one(Upload, upload_id, with_for_update=True).deleted_at is not None:
            raise WrongStateError(f"upload {upload_id} of job {job.id} was deleted", "submit it anew")


def _position(session: Session, job: Job) -> int:
    """Of a queued job, among those of all tenants."""
    ahead = tuple_(Job.created_at, Job.id) < (job.created_at, job.id)
    waiting = select(func.count()).where(Job.state == State.QUEUED, Job.queue == job.queue, ahead)
    return 1 + (session.scalar(waiting) or 0)


def _fresh(session: Session, job: Job) -> Job:
    session.flush()
    session.refresh(job)
    return job
