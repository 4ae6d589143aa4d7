"""What nobody's job is and somebody has to do: expired leases, rings that were lost, files without a row, webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, and_, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from jobs.database import now
from jobs.idempotency import stale
from jobs.session import Sessions
from jobs.states import State
from jobs.tables import Artifact, Duty, Idempotency, Identity, Job, Message, Part, Total, Upload, WorkerRow

LATELY_SECONDS = 60.0  # a worker that said so lately is there
_GONE_SECONDS = 24 * 3600.0
_SENT_SECONDS = 7 * 24 * 3600.0
RETRY_SECONDS = (5, 60, 300, 1800, 7200, 18000, 36000, 36000)  # then it is given up; a day in all


@dataclass(frozen=True)
class Due:
    """A webhook that is to be sent now; ``now`` is the database's time, for its signature."""

    id: str
    body: dict[str, Any]
    tries: int
    created_at: float
    now: float


@dataclass(frozen=True)
class Numbers:
    """For the metrics. Sums over all jobs grow only; those of running jobs are of this moment."""

    started: int
    waited: float
    lost: int
    oldest_wait: float
    epoch_seconds: float
    images_per_second: float
    gpu_memory: float
    workers: dict[str, int]


class Upkeep(Sessions):
    """For the reconciler."""

    def take_duty(self, name: str, owner: str, seconds: float) -> bool:
        """Be the one who does it for so long; False while somebody else is."""
        free = and_(Duty.name == name, or_(Duty.owner == owner, Duty.lease_until < now()))
        try:
            with self._write() as session:
                taken = session.execute(update(Duty).where(free).values(owner=owner, lease_until=now() + seconds))
                if isinstance(taken, CursorResult) and taken.rowcount == 1:
                    return True
                if session.get(Duty, name) is None:
                    session.add(Duty(name=name, owner=owner, lease_until=now() + seconds))
                    session.flush()
                    return True
        except IntegrityError:
            pass  # another one was first
        return False

    def take_back(self) -> list[tuple[str, State]]:
        """Running jobs whose lease ran out wait again, or end; returns what became of each."""
        done = []
        for job_id in self._expired():
            with self._write() as session:
                lost = and_(Job.id == job_id, Job.state == State.RUNNING, Job.lease_until < now())
                job = session.scalars(select(Job).where(lost).with_for_update(skip_locked=True)).first()
                if job is None:
                    continue
                how = f"worker {job.owner} was silent for a whole lease"
                became = self._put_back(session, job.id, lost, charged=True, lost=how)
                if became is None:
                    session.rollback()
                else:
                    done.append((job_id, became))
        return done

    def _expired(self) -> list[str]:
        with self._read() as session:
            return [*session.scalars(select(Job.id).where(Job.state == State.RUNNING, Job.lease_until < now()))]

    def waiting(self) -> dict[str, list[str]]:
        """Ids of the queued jobs by queue, the oldest first."""
        found: dict[str, list[str]] = {}
        with self._read() as session:
            query = select(Job.queue, Job.id).where(Job.state == State.QUEUED).order_by(Job.created_at, Job.id)
            for queue, job_id in session.execute(query):
                found.setdefault(queue, []).append(job_id)
        return found

    def waits(self, queues: Sequence[str]) -> bool:
        """Whether a job waits in one of these queues."""
        query = select(Job.id).where(Job.state == State.QUEUED, Job.queue.in_(queues)).limit(1)
        with self._read() as session:
            return session.scalar(query) is not None

    # --- workers

    def seen(self, name: str, queues: Sequence[str], sandbox: str = "") -> None:
        """A worker is there, with what holds its jobs in; or a reconciler, which serves no queue."""
        with self._write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.seen_at < now() - _GONE_SECONDS))
            row = session.get(WorkerRow, name)
            if row is None:
                session.add(WorkerRow(name=name, queues=",".join(queues), sandbox=sandbox, seen_at=now()))
            else:
                session.execute(update(WorkerRow).where(WorkerRow.name == name).values(seen_at=now()))

    def gone(self, name: str) -> None:
        """A worker leaves."""
        with self._write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.name == name))

    def workers(self, within_seconds: float) -> dict[str, list[str]]:
        """Queues of each worker that was seen lately."""
        with self._read() as session:
            rows = session.scalars(select(WorkerRow).where(WorkerRow.seen_at > now() - within_seconds))
            return {row.name: row.queues.split(",") if row.queues else [] for row in rows}

    def sandboxes(self, within_seconds: float) -> dict[str, str]:
        """What holds the jobs in, of each worker that was seen lately."""
        with self._read() as session:
            rows = session.scalars(select(WorkerRow).where(WorkerRow.seen_at > now() - within_seconds))
            return {row.name: row.sandbox for row in rows if row.sandbox}

    # --- files

    def orphans(self, keys: Iterable[str]) -> list[str]:
        """Those of the stored files that no row knows; what comes for an upload that goes on may get its row yet."""
        wanted = [*keys]
        known: set[str] = set()
        open_ones: set[str] = set()
        with self._read() as session:
            for start in range(0, len(wanted), 500):
                piece = wanted[start : start + 500]
                known.update(session.scalars(select(Artifact.key).where(Artifact.key.in_(piece))))
                known.update(session.scalars(select(Part.key).where(Part.key.in_(piece))))
                coming = {_upload_of(key) for key in piece}
                going_on = select(Upload.id).where(Upload.id.in_(coming), Upload.finished_at.is_(None))
                open_ones.update(session.scalars(going_on))
        return [key for key in wanted if key not in known and _upload_of(key) not in open_ones]

    def identity(self) -> str:
        """Which service this is."""
        with self._read() as session:
            return session.scalars(select(Identity.id)).one()

    def clock(self) -> float:
        """The database's time."""
        with self._read() as session:
            return session.scalar(select(now())) or 0.0

    # --- the outbox

    def due(self, limit: int) -> list[Due]:
        """Webhooks that are to be sent now, the oldest first."""
        open_ones = and_(Message.delivered_at.is_(None), Message.given_up_at.is_(None), Message.due_at <= now())
        query = select(Message, now()).where(open_ones).order_by(Message.due_at).limit(limit)
        with self._read() as session:
            return [Due(m.id, m.body, m.tries, m.created_at, moment) for m, moment in session.execute(query)]

    def delivered(self, message: Due) -> None:
        """It arrived."""
        self._settle(message, delivered_at=now(), error=None)

    def not_delivered(self, message: Due, error: str, *, for_good: bool = False) -> None:
        """Try again later, or give up."""
        if for_good or message.tries >= len(RETRY_SECONDS):
            self._settle(message, given_up_at=now(), error=error)
        else:
            self._settle(message, due_at=now() + RETRY_SECONDS[message.tries], error=error)

    def forget_sent(self) -> None:
        """Those that were delivered or given up some time ago."""
        settled = func.coalesce(Message.delivered_at, Message.given_up_at)
        with self._write() as session:
            session.execute(delete(Message).where(settled < now() - _SENT_SECONDS))

    def forget_requests(self) -> None:
        """Answers that were kept for repetitions, after a day."""
        with self._write() as session:
            session.execute(delete(Idempotency).where(stale()))

    def _settle(self, message: Due, **changes: Any) -> None:
        with self._write() as session:
            this = update(Message).where(Message.id == message.id, Message.tries == message.tries)
            session.execute(this.values(tries=message.tries + 1, **changes))

    # --- numbers for the metrics

    def counts(self) -> dict[tuple[str, str], int]:
        """Jobs by queue and state."""
        query = select(Job.queue, Job.state, func.count()).group_by(Job.queue, Job.state)
        with self._read() as session:
            return {(queue, state): count for queue, state, count in session.execute(query)}

    def numbers(self) -> Numbers:
        """Everything else."""
        sums = select(func.count(Job.started_at), func.sum(Job.started_at - Job.created_at), func.sum(Job.lost), now())
        oldest = select(func.min(Job.created_at)).where(Job.state == State.QUEUED)
        running = select(Job.progress).where(Job.state == State.RUNNING)
        with self._read() as session:
            started, waited, lost, moment = session.execute(sums).one()
            deleted = {row.name: row.value for row in session.scalars(select(Total))}
            first = session.scalar(oldest)
            progress = [*session.scalars(running)]
        queues = [queue for queues in self.workers(LATELY_SECONDS).values() for queue in queues]
        epochs = [each["epoch_seconds"] for each in progress if each.get("epoch_seconds")]
        return Numbers(
            started=started + int(deleted.get("started", 0)),
            waited=(waited or 0.0) + deleted.get("waited", 0.0),
            lost=(lost or 0) + int(deleted.get("lost", 0)),
            oldest_wait=max(0.0, moment - first) if first is not None else 0.0,
            epoch_seconds=sum(epochs) / len(epochs) if epochs else 0.0,
            images_per_second=sum(each.get("images_per_second") or 0 for each in progress),
            gpu_memory=sum(each.get("gpu_memory_bytes") or 0 for each in progress),
            workers={queue: queues.count(queue) for queue in queues},
        )


def _upload_of(key: str) -> str:
    """The upload in the key of a part: uploads/ID/PART."""
    return key.split("/")[1] if key.startswith("uploads/") else ""
