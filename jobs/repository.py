"""All queries. Every write of a running job is one transaction guarded by attempt and lease."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Engine,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from jobs.database import now, writing
from jobs.errors import JobNotFoundError, LeaseLostError, UploadNotFoundError, WrongStateError
from jobs.states import FINAL, State, sources
from jobs.storage import Stored
from jobs.tables import Artifact, Epoch, Event, Job, Result, Upload

MAX_STALLED = 3


@dataclass(frozen=True)
class Claim:
    """The right to write to a job until the lease ends."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class NewJob:
    """What a job starts from; ``spec`` is opaque here."""

    spec: dict[str, Any]
    defense: str
    name: str | None
    tags: dict[str, str]
    epochs: int
    checkpoint_upload: str | None
    data_upload: str | None


@dataclass(frozen=True)
class NewUpload:
    """A stored file that no row knows yet."""

    id: str
    filename: str
    stored: Stored


def new_id(prefix: str) -> str:
    """A random id, safe in URLs and file names."""
    return f"{prefix}_{secrets.token_hex(10)}"


class JobRepository:
    """Jobs in a database."""

    def __init__(self, engine: Engine) -> None:
        self._readers, self._writers = engine, writing(engine)

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._readers, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with Session(self._writers, expire_on_commit=False) as session, session.begin():
            yield session

    # --- submitting and looking

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
            for upload_id in filter(None, (new.checkpoint_upload, new.data_upload)):
                if session.get(Upload, upload_id) is None:
                    raise UploadNotFoundError(upload_id)
            job = Job(
                id=job_id,
                name=new.name,
                tags=new.tags,
                state=State.QUEUED,
                defense=new.defense,
                spec=new.spec,
                checkpoint_upload=new.checkpoint_upload,
                data_upload=new.data_upload,
                progress={"epoch": 0, "epochs": new.epochs, "fraction": 0.0, "eta_seconds": None},
                created_at=now(),
                updated_at=now(),
            )
            session.add(job)
            session.flush()
            session.add(_event(job_id, 0, "state", {"state": State.QUEUED}))
            session.refresh(job)
        return job

    def job(self, job_id: str) -> Job:
        """One job, without its report. Raises: JobNotFoundError."""
        with self._read() as session:
            return _get(session, job_id)

    def report(self, job_id: str) -> tuple[Job, dict[str, Any] | None]:
        """One job with its report. Raises: JobNotFoundError."""
        with self._read() as session:
            job = _get(session, job_id)
            return job, job.report

    def queue_position(self, job: Job) -> int | None:
        """1 for the queued job that is next; None if it is not queued."""
        if job.state != State.QUEUED:
            return None
        ahead = tuple_(Job.created_at, Job.id) < (job.created_at, job.id)
        with self._read() as session:
            return 1 + (session.scalar(select(func.count()).where(Job.state == State.QUEUED, ahead)) or 0)

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

    def artifacts(self, job_id: str, kind: str) -> dict[str, Artifact]:
        """Files of one kind by name."""
        query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == kind)
        with self._read() as session:
            return {artifact.name: artifact for artifact in session.scalars(query)}

    # --- ending from outside

    def request_cancel(self, job_id: str) -> Job:
        """Cancel at once if queued; else ask the owner, who says cancelled once the process is dead."""
        with self._write() as session:
            job = _get(session, job_id)
            if job.state == State.QUEUED:
                _move(session, State.CANCELLED, Job.id == job_id, finished_at=now(), cancel_requested=True)
                session.add(_event(job_id, job.attempt, "state", {"state": State.CANCELLED}))
            elif job.state not in FINAL:
                job.cancel_requested = True
            elif job.state != State.CANCELLED:
                raise WrongStateError(f"job {job_id} has {job.state} already")
            session.flush()
            session.refresh(job)
            return job

    def delete(self, job_id: str) -> list[Stored]:
        """Forget a finished job; returns the files that nothing refers to any more."""
        with self._write() as session:
            job = _get(session, job_id)
            if job.state not in FINAL:
                raise WrongStateError(f"job {job_id} is {job.state}", f"POST /jobs/{job_id}/cancel first")
            freed = [Stored(a.key, a.sha256, a.size) for a in session.scalars(_artifacts_of(job_id))]
            uploads = {job.checkpoint_upload, job.data_upload} - {None}
            session.delete(job)
            session.flush()
            for upload_id in uploads:
                used = or_(Job.checkpoint_upload == upload_id, Job.data_upload == upload_id)
                upload = session.get(Upload, upload_id)
                if upload is not None and not session.scalar(select(Job.id).where(used).limit(1)):
                    freed.append(Stored(upload.key, upload.sha256, upload.size))
                    session.delete(upload)
            return freed

    # --- running

    def claim(self, owner: str, lease_seconds: float) -> Claim | None:
        """Take the oldest waiting job, or one whose lease ran out, by one conditional UPDATE.

        A job that came back three times without saving anything new fails here as ``poison``; one whose
        cancellation was asked for while its owner died is cancelled here.
        """
        lost = and_(Job.state == State.RUNNING, Job.lease_until < now())
        free = or_(Job.state == State.QUEUED, lost)
        with self._write() as session:
            while candidate := session.scalars(
                select(Job).where(free).order_by(Job.created_at, Job.id).limit(1)
            ).first():
                this = and_(Job.id == candidate.id, free)
                if candidate.cancel_requested:
                    _move(session, State.CANCELLED, this, finished_at=now(), owner=None, lease_until=None)
                    session.add(_event(candidate.id, candidate.attempt, "state", {"state": State.CANCELLED}))
                    continue
                if candidate.stalled >= MAX_STALLED:
                    failure = _poison(session, candidate)
                    _move(
                        session,
                        State.FAILED,
                        this,
                        failure=failure,
                        finished_at=now(),
                        owner=None,
                        lease_until=None,
                    )
                    session.add(_event(candidate.id, candidate.attempt, "failure", failure))
                    continue
                attempt = candidate.attempt + 1
                moved = _move(
                    session,
                    State.RUNNING,
                    and_(this, Job.attempt == candidate.attempt),
                    attempt=attempt,
                    stalled=Job.stalled + 1,
                    owner=owner,
                    lease_until=now() + lease_seconds,
                    started_at=func.coalesce(Job.started_at, now()),
                )
                if moved:
                    session.add(_event(candidate.id, attempt, "state", {"state": State.RUNNING, "attempt": attempt}))
                    return Claim(candidate.id, attempt)
        return None

    def renew(self, claim: Claim, lease_seconds: float) -> None:
        """Keep the lease. Raises: LeaseLostError."""
        with self._guarded(claim, lease_until=now() + lease_seconds):
            pass

    def cancel_requested(self, claim: Claim) -> bool:
        """Whether the job's owner should stop it."""
        with self._read() as session:
            return bool(session.scalar(select(Job.cancel_requested).where(Job.id == claim.job_id)))

    def set_progress(self, claim: Claim, progress: Mapping[str, Any]) -> None:
        """Replace the job's progress. Raises: LeaseLostError."""
        with self._guarded(claim, progress=dict(progress)):
            pass

    def add_event(self, claim: Claim, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event; a phase is shown on the job, an epoch gets its row, once. Raises: LeaseLostError."""
        changes = {"phase": data["phase"]} if kind == "phase" else {}
        with self._guarded(claim, **changes) as session:
            if kind == "epoch":
                if session.get(Epoch, (claim.job_id, data["epoch"])):
                    return  # executed again after a crash
                row = Epoch(job_id=claim.job_id, epoch=data["epoch"], attempt=claim.attempt, metrics=dict(data))
                session.add(row)
            session.add(_event(claim.job_id, claim.attempt, kind, dict(data)))

    def add_state(self, claim: Claim, name: str, stored: Stored, *, epoch: int, step: int) -> Stored | None:
        """Point the job to a newer state file; returns the one it replaces. Raises: LeaseLostError.

        Getting further than any attempt before clears the count of attempts without progress.
        """
        with self._guarded(claim) as session:
            job = _get(session, claim.job_id)
            if (epoch, step) > (job.reached_epoch, job.reached_step):
                job.reached_epoch, job.reached_step, job.stalled = epoch, step, 0
            old = session.get(Artifact, (claim.job_id, "state", name))
            replaced = Stored(old.key, old.sha256, old.size) if old else None
            session.merge(_artifact(claim, "state", name, stored))
        return replaced

    def drop_state(self, job_id: str) -> list[Stored]:
        """Forget the training state of a finished job; returns the files that are free now."""
        with self._write() as session:
            if _get(session, job_id).state not in FINAL:
                return []
            state = _artifacts_of(job_id).where(Artifact.kind == "state")
            freed = []
            for artifact in session.scalars(state):
                freed.append(Stored(artifact.key, artifact.sha256, artifact.size))
                session.delete(artifact)
            return freed

    def release(self, claim: Claim, *, charged: bool) -> None:
        """Put the job back; ``charged`` if the attempt counts towards those without progress."""
        stalled = Job.stalled if charged else case((Job.stalled > 0, Job.stalled - 1), else_=0)
        with self._guarded(claim, state=State.QUEUED, owner=None, lease_until=None, stalled=stalled) as session:
            session.add(_event(claim.job_id, claim.attempt, "state", {"state": State.QUEUED}))

    def succeed(
        self,
        claim: Claim,
        report: Mapping[str, Any],
        outputs: Mapping[str, Stored],
        progress: Mapping[str, Any],
    ) -> None:
        """Result, report, files and final state, in one guarded transaction. Raises: LeaseLostError."""
        with self._finish(claim, State.SUCCEEDED, outputs, report=dict(report), progress=dict(progress)) as session:
            for side in ("before", "after"):
                if report[side] is not None:
                    session.add_all(_results(claim.job_id, side, report[side]))
            session.add(_event(claim.job_id, claim.attempt, "state", {"state": State.SUCCEEDED}))

    def fail(self, claim: Claim, failure: Mapping[str, Any], outputs: Mapping[str, Stored]) -> None:
        """End with a reason; files that were reached are kept. Raises: LeaseLostError."""
        with self._finish(claim, State.FAILED, outputs, failure=dict(failure)) as session:
            session.add(_event(claim.job_id, claim.attempt, "failure", dict(failure)))

    def cancelled(self, claim: Claim) -> None:
        """Say cancelled; the process is dead. Raises: LeaseLostError."""
        with self._finish(claim, State.CANCELLED, {}) as session:
            session.add(_event(claim.job_id, claim.attempt, "state", {"state": State.CANCELLED}))

    @contextmanager
    def _finish(self, claim: Claim, state: State, outputs: Mapping[str, Stored], **changes: Any) -> Iterator[Session]:
        ended = {"state": state, "owner": None, "lease_until": None, "finished_at": now(), **changes}
        with self._guarded(claim, **ended) as session:
            for name, stored in outputs.items():
                session.merge(_artifact(claim, "output", name, stored))
            yield session

    @contextmanager
    def _guarded(self, claim: Claim, **changes: Any) -> Iterator[Session]:
        """A write transaction that only the owner of a running lease gets."""
        mine = and_(
            Job.id == claim.job_id,
            Job.state == State.RUNNING,
            Job.attempt == claim.attempt,
            Job.lease_until > now(),
        )
        with self._write() as session:
            target = State(changes.pop("state", State.RUNNING))
            if not _move(session, target, mine, **changes):
                raise LeaseLostError(f"attempt {claim.attempt} no longer owns job {claim.job_id}")
            yield session


def _move(session: Session, target: State, where: ColumnElement[bool], **changes: Any) -> bool:
    """The one UPDATE that changes a state; False if no row was in a state that allows it."""
    statement = (
        update(Job)
        .where(where, Job.state.in_(sources(target)))
        .values(state=target, updated_at=now(), **changes)
        .execution_options(synchronize_session=False)
    )
    result = session.execute(statement)
    session.expire_all()
    return isinstance(result, CursorResult) and result.rowcount == 1


def _get(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def _artifacts_of(job_id: str) -> Select[Artifact]:
    return select(Artifact).where(Artifact.job_id == job_id)


def _event(job_id: str, attempt: int, kind: str, data: dict[str, Any]) -> Event:
    return Event(job_id=job_id, attempt=attempt, type=kind, data=data, created_at=now())


def _artifact(claim: Claim, kind: str, name: str, stored: Stored) -> Artifact:
    return Artifact(
        job_id=claim.job_id,
        kind=kind,
        name=name,
        key=stored.key,
        sha256=stored.sha256,
        size=stored.size,
        attempt=claim.attempt,
        created_at=now(),
    )


def _upload(upload: NewUpload) -> Upload:
    return Upload(
        id=upload.id,
        filename=upload.filename,
        key=upload.stored.key,
        sha256=upload.stored.sha256,
        size=upload.stored.size,
        created_at=now(),
    )


def _poison(session: Session, job: Job) -> dict[str, Any]:
    lost = select(Event).where(Event.job_id == job.id, Event.type == "lost").order_by(Event.id.desc()).limit(1)
    last = session.scalars(lost).first()
    how = f"; in the last, {last.data['detail']}" if last else "; the service itself was lost each time"
    return {
        "code": "poison",
        "blame": "system",
        "detail": f"{MAX_STALLED} attempts in a row ended without saving anything new{how}",
        "hint": "signal 9 is most often a lack of memory: lower training.batch_size and evaluation.batch_size",
    }


def _results(job_id: str, side: str, content: Mapping[str, Any]) -> Iterable[Result]:
    rows = [("clean", None, content["clean"])]
    rows += [(attack["name"], attack["threat"], attack) for attack in content["attacks"]]
    rows += [("robust", None, content["robust"])]
    for position, (attack, threat, count) in enumerate(rows):
        yield Result(
            job_id=job_id,
            side=side,
            position=position,
            attack=attack,
            norm=threat["norm"] if threat else None,
            eps=threat["eps"] if threat else None,
            correct=count["correct"],
            total=count["total"],
        )
