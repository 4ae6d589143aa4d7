"""Jobs as their users see them: submitted, looked at, cancelled, paused, resumed, deleted."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from jobs.database import now
from jobs.errors import StorageFullError, UploadNotFoundError, WrongStateError
from jobs.session import Sessions, drop_state, get_job, move
from jobs.states import FINAL, State
from jobs.storage import Stored
from jobs.tables import Artifact, Event, Job, LogChunk, Total, Upload


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


@dataclass(frozen=True)
class NewUpload:
    """A stored file that no row knows yet."""

    id: str
    filename: str
    stored: Stored


def new_id(prefix: str) -> str:
    """A random id, safe in URLs and file names."""
    return f"{prefix}_{secrets.token_hex(10)}"


class JobRepository(Sessions):
    """Jobs in a database."""

    # --- submitting

    def upload(self, upload_id: str) -> Upload:
        """One upload. Raises: UploadNotFoundError."""
        with self._read() as session:
            upload = session.get(Upload, upload_id)
        if upload is None:
            raise UploadNotFoundError(upload_id)
        return upload

    def create(self, new: NewJob, uploads: Iterable[NewUpload] = ()) -> Job:
        """Store a job as queued, and make the files exist that came with it, in one transaction.

        Raises: UploadNotFoundError if a file that it refers to was deleted meanwhile.
        """
        job_id = new_id("job")
        with self._write() as session:
            session.add_all(_upload(upload) for upload in uploads)
            session.flush()
            for upload_id in _sorted(new.checkpoint_upload, new.data_upload):
                # locked: a deletion of its last job must not take it away before this one refers to it
                if session.get(Upload, upload_id, with_for_update=True) is None:
                    raise UploadNotFoundError(upload_id)
            job = Job(
                id=job_id,
                name=new.name,
                tags=new.tags,
                state=State.QUEUED,
                queue=new.queue,
                defense=new.defense,
                spec=new.spec,
                checkpoint_upload=new.checkpoint_upload,
                data_upload=new.data_upload,
                max_seconds=new.max_seconds,
                progress={"epoch": 0, "epochs": new.epochs, "fraction": 0.0, "eta_seconds": None},
                created_at=now(),
                updated_at=now(),
            )
            session.add(job)
            session.flush()
            self._announce(session, job_id)
            session.refresh(job)
        return job

    # --- looking

    def job(self, job_id: str) -> Job:
        """One job, without its report. Raises: JobNotFoundError."""
        with self._read() as session:
            return get_job(session, job_id)

    def report(self, job_id: str) -> tuple[Job, dict[str, Any] | None]:
        """One job with its report. Raises: JobNotFoundError."""
        with self._read() as session:
            job = get_job(session, job_id)
            return job, job.report

    def queue_position(self, job: Job) -> int | None:
        """1 for the job that is next in its queue; None if it is not queued."""
        if job.state != State.QUEUED:
            return None
        ahead = tuple_(Job.created_at, Job.id) < (job.created_at, job.id)
        waiting = select(func.count()).where(Job.state == State.QUEUED, Job.queue == job.queue, ahead)
        with self._read() as session:
            return 1 + (session.scalar(waiting) or 0)

    def page(self, *, state: str | None, defense: str | None, limit: int, after: tuple[float, str] | None) -> list[Job]:
        """Newest first; ``after`` is (created_at, id) of the last one seen."""
        query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
        if state:
            query = query.where(Job.state == state)
        if defense:
            query = query.where(Job.defense == defense)
        if after:
            query = query.where(tuple_(Job.created_at, Job.id) < after)
        with self._read() as session:
            return [*session.scalars(query)]

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """Events with ids greater than ``after``, oldest first."""
        query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
        with self._read() as session:
            return [*session.scalars(query)]

    def log(self, job_id: str, *, after: int = 0) -> list[LogChunk]:
        """Pieces of the training log with ids greater than ``after``, oldest first."""
        query = select(LogChunk).where(LogChunk.job_id == job_id, LogChunk.id > after).order_by(LogChunk.id)
        with self._read() as session:
            return [*session.scalars(query)]

    def artifacts(self, job_id: str, kind: str) -> dict[str, Artifact]:
        """Files of one kind by name."""
        query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == kind)
        with self._read() as session:
            return {artifact.name: artifact for artifact in session.scalars(query)}

    # --- ending, pausing and going on, from outside

    def request_cancel(self, job_id: str) -> Job:
        """Cancel at once what no process works at; else ask the owner, who says cancelled once the process is dead.

        Raises: WrongStateError if it ended in another way.
        """
        with self._write() as session:
            job = _lock(session, job_id)
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
            job = _lock(session, job_id)
            if job.state == State.RUNNING:
                job.pause_requested = True
            elif job.state != State.PAUSED:
                hint = f"POST /jobs/{job_id}/cancel keeps it from starting" if job.state == State.QUEUED else ""
                raise WrongStateError(f"job {job_id} is {job.state}: only a running job can be paused", hint)
            return _fresh(session, job)

    def resume(self, job_id: str) -> Job:
        """Put a job back into its queue, at the place of its age: one that was paused, or that no room was left for.

        Raises: WrongStateError for others.
        """
        with self._write() as session:
            job = _lock(session, job_id)
            if job.state == State.PAUSED:
                move(session, State.QUEUED, Job.id == job_id)
                self._announce(session, job_id)
            elif job.state == State.FAILED and (job.failure or {}).get("code") == StorageFullError.code:
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
            job = _lock(session, job_id)
            if job.state not in FINAL:
                raise WrongStateError(f"job {job_id} is {job.state}", f"POST /jobs/{job_id}/cancel first")
            freed = [Stored(a.key, a.sha256, a.size) for a in session.scalars(_artifacts_of(job_id))]
            uploads = _sorted(job.checkpoint_upload, job.data_upload)
            _remember(session, job)
            session.delete(job)
            session.flush()
            for upload_id in uploads:
                used = or_(Job.checkpoint_upload == upload_id, Job.data_upload == upload_id)
                upload = session.get(Upload, upload_id, with_for_update=True)
                if upload is not None and not session.scalar(select(Job.id).where(used).limit(1)):
                    freed.append(Stored(upload.key, upload.sha256, upload.size))
                    session.delete(upload)
            return freed


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


def _lock(session: Session, job_id: str) -> Job:
    """The job, which nobody else changes until the transaction ends. Raises: JobNotFoundError."""
    job = session.get(Job, job_id, with_for_update=True)
    return job or get_job(session, job_id)


def _fresh(session: Session, job: Job) -> Job:
    session.flush()
    session.refresh(job)
    return job


def _upload(upload: NewUpload) -> Upload:
    return Upload(
        id=upload.id,
        filename=upload.filename,
        key=upload.stored.key,
        sha256=upload.stored.sha256,
        size=upload.stored.size,
        created_at=now(),
    )
