"""Transactions, and the writes that all repositories share: the move of a state, and its event."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.database import now, writing
from jobs.errors import JobNotFoundError, UploadNotFoundError
from jobs.states import FINAL, State, sources
from jobs.storage import Stored
from jobs.tables import Artifact, Event, Job, LogChunk, Message, Upload

MAX_STALLED = 3
_TAIL_LINES = 5


ID = re.compile(r"[a-z]+_[0-9a-f]{20}")


def new_id(prefix: str) -> str:
    """A random id, safe in URLs and file names."""
    return f"{prefix}_{secrets.token_hex(10)}"


class Sessions:
    """Reading and writing transactions on one database. ``webhooks``: tell of states by the outbox."""

    def __init__(self, engine: Engine, *, webhooks: bool = False) -> None:
        self._readers, self._writers = engine, writing(engine)
        self._webhooks = webhooks

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._readers, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with Session(self._writers, expire_on_commit=False) as session, session.begin():
            yield session

    def _announce(self, session: Session, job_id: str, **more: Any) -> None:
        """Tell of a new state: an event, and a webhook where somebody listens.

        Always after the UPDATE of the job's row in the same transaction: that lock is what makes the ids of a job's
        events grow in the order of their commits, so that a reader who has seen one has seen all before it.
        """
        job = get_job(session, job_id)
        if job.state == State.FAILED:
            session.add(new_event(job_id, job.attempt, "failure", dict(job.failure or {})))
        else:
            session.add(new_event(job_id, job.attempt, "state", {"state": job.state, **more}))
        if self._webhooks and (job.state in FINAL or job.state == State.PAUSED):
            session.add(_message(job))

    def _put_back(
        self, session: Session, job_id: str, where: ColumnElement[bool], *, charged: bool, lost: str | None = None
    ) -> State | None:
        """What becomes of a running job whose attempt ended without an end; None if ``where`` no longer holds.

        It waits again, unless its user wanted it cancelled or paused meanwhile, or it came back too often without
        having saved anything new. ``charged``: the attempt counts towards those. ``lost``: how it was, as an event.
        """
        job = get_job(session, job_id)
        if lost is not None:
            session.add(new_event(job_id, job.attempt, "lost", {"detail": lost}))
            session.flush()
        stalled = job.stalled if charged else max(0, job.stalled - 1)
        changes: dict[str, Any] = {"owner": None, "lease_until": None, "stalled": stalled, "phase": None}
        changes["lost"] = job.lost + (lost is not None)
        changes["used_seconds"] = used_seconds()
        if job.cancel_requested:
            target = State.CANCELLED
            changes["finished_at"] = now()
        elif charged and stalled >= MAX_STALLED:
            target = State.FAILED
            changes["failure"] = _poison(session, job)
            changes["finished_at"] = now()
        elif job.pause_requested:
            target = State.PAUSED
            changes["pause_requested"] = False
        else:
            target = State.QUEUED
        if not move(session, target, where, **changes):
            return None
        if target in FINAL:
            drop_state(session, job_id)  # the files themselves are swept later
        self._announce(session, job_id)
        return target


def used_seconds() -> ColumnElement[float]:
    """How long a running job has run, over all its attempts."""
    return Job.used_seconds + now() - func.coalesce(Job.claimed_at, now())


def move(session: Session, target: State, where: ColumnElement[bool], **changes: Any) -> bool:
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


def get_job(session: Session, job_id: str) -> Job:
    """One job. Raises: JobNotFoundError."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFoundError
    return job


def get_upload(session: Session, upload_id: str) -> Upload:
    """One upload. Raises: UploadNotFoundError."""
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise UploadNotFoundError
    return upload


def drop_state(session: Session, job_id: str) -> list[Stored]:
    """Forget the training state of a job that has ended: it is not resumed. Returns the files that are free now."""
    rows = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == "state")
    freed = []
    for artifact in session.scalars(rows):
        freed.append(Stored(artifact.key, artifact.sha256, artifact.size))
        session.delete(artifact)
    return freed


def new_event(job_id: str, attempt: int, kind: str, data: dict[str, Any]) -> Event:
    """An event of now."""
    return Event(job_id=job_id, attempt=attempt, type=kind, data=data, created_at=now())


def _message(job: Job) -> Message:
    content = {"id": job.id, "name": job.name, "state": job.state, "attempt": job.attempt, "failure": job.failure}
    return Message(
        id=f"msg_{job.id.removeprefix('job_')}_{job.attempt}_{job.state}",
        job_id=job.id,
        body={"type": f"job.{job.state}", "data": content},
        due_at=now(),
        created_at=now(),
    )


def _poison(session: Session, job: Job) -> dict[str, Any]:
    lost = select(Event).where(Event.job_id == job.id, Event.type == "lost").order_by(Event.id.desc()).limit(1)
    last = session.scalars(lost).first()
    how = f"; in the last, {last.data['detail']}" if last else "; its worker was lost each time"
    chunks = session.scalars(
        select(LogChunk.text).where(LogChunk.job_id == job.id).order_by(LogChunk.id.desc()).limit(_TAIL_LINES)
    )
    lines = "".join([*chunks][::-1]).splitlines()[-_TAIL_LINES:]
    return {
        "code": "poison",
        "blame": "system",
        "detail": f"{MAX_STALLED} attempts in a row ended without saving anything new{how}",
        "hint": "signal 9 is most often a lack of memory: lower training.batch_size and evaluation.batch_size",
        "log": lines,
    }
