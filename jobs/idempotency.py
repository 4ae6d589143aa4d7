"""Requests that may be sent again: the first makes the job, the others get its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Engine, and_, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobs.database import now
from jobs.errors import IdempotencyInProgressError, IdempotencyKeyReusedError
from jobs.session import Sessions, new_id
from jobs.tables import Idempotency

KEPT_SECONDS = 24 * 3600.0
LEASE_SECONDS = 30.0  # a request whose process died blocks its key for so long


@dataclass(frozen=True)
class Repeatable:
    """One request with an Idempotency-Key. ``answered``: an earlier one made this job, with this answer."""

    key: str
    owner: str
    fingerprint: str | None = None
    answered: dict[str, Any] | None = None

    def replay(self, fingerprint: str) -> dict[str, Any] | None:
        """The earlier answer, if there is one. Raises: IdempotencyKeyReusedError if that was to another request."""
        if self.answered is not None and self.fingerprint != fingerprint:
            raise IdempotencyKeyReusedError
        return self.answered


class IdempotencyRepository(Sessions):
    """The keys of one tenant's requests."""

    def __init__(self, engine: Engine, tenant_id: str) -> None:
        super().__init__(engine)
        self._tenant_id = tenant_id

    def begin(self, key: str) -> Repeatable:
        """Be the one that works at it, or get what an earlier one answered. Raises: IdempotencyInProgressError."""
        owner = new_id("req")
        row = Idempotency(
            tenant_id=self._tenant_id, key=key, owner=owner, lease_until=now() + LEASE_SECONDS, created_at=now()
        )
        try:
            with self._write() as session:
                session.execute(delete(Idempotency).where(self._is(key), stale()))
                session.add(row)
        except IntegrityError:
            return self._earlier(key)
        return Repeatable(key, owner)

    def _earlier(self, key: str) -> Repeatable:
        with self._read() as session:
            found = session.execute(select(Idempotency, Idempotency.lease_until - now()).where(self._is(key))).first()
        if found is None or found[0].answer is None:  # none: it was given up in this moment
            raise IdempotencyInProgressError(1.0 if found is None else found[1])
        row: Idempotency = found[0]
        return Repeatable(key, row.owner, row.fingerprint, row.answer)

    def renew(self, request: Repeatable) -> None:
        """It still goes on."""
        with self._write() as session:
            mine = update(Idempotency).where(self._is(request.key), Idempotency.owner == request.owner)
            session.execute(mine.values(lease_until=now() + LEASE_SECONDS))

    def give_up(self, request: Repeatable) -> None:
        """It made nothing: the next one begins anew. One that did make something is left as it is."""
        with self._write() as session:
            mine = and_(self._is(request.key), Idempotency.owner == request.owner, Idempotency.answer.is_(None))
            session.execute(delete(Idempotency).where(mine))

    def _is(self, key: str) -> ColumnElement[bool]:
        return and_(Idempotency.tenant_id == self._tenant_id, Idempotency.key == key)


def settle(
    session: Session, tenant_id: str, request: Repeatable, fingerprint: str, job_id: str, answer: dict[str, Any]
) -> None:
    """In the transaction that makes the job: its answer is that of every repetition.

    Raises: IdempotencyInProgressError if a repetition has taken over: this one was silent for too long.
    """
    mine = and_(
        Idempotency.tenant_id == tenant_id,
        Idempotency.key == request.key,
        Idempotency.owner == request.owner,
        Idempotency.answer.is_(None),
    )
    done = session.execute(
        update(Idempotency).where(mine).values(fingerprint=fingerprint, job_id=job_id, answer=answer)
    )
    if not isinstance(done, CursorResult) or done.rowcount != 1:
        raise IdempotencyInProgressError(1.0)


def stale() -> ColumnElement[bool]:
    """Answers of a day ago, and requests whose process died."""
    died = and_(Idempotency.answer.is_(None), Idempotency.lease_until < now())
    return or_(Idempotency.created_at < now() - KEPT_SECONDS, died)
