"""Jobs as their workers see them. Every write of a running job is one transaction guarded by attempt and lease."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from jobs.database import now
from jobs.errors import LeaseLostError
from jobs.session import Sessions, drop_state, get_job, get_upload, move, new_event, used_seconds
from jobs.states import State
from jobs.storage import Stored
from jobs.tables import Artifact, Epoch, Job, LogChunk, Part, Result, Upload

_SIDES = ("before", "after")


@dataclass(frozen=True)
class Claim:
    """The right to write to a job until the lease ends."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Orders:
    """What the user wants of a running job; ``time_is_up``: it has run as long as it may."""

    cancel: bool
    pause: bool
    time_is_up: bool = False


class LeaseRepository(Sessions):
    """Claims, and what the owner of a claim may write."""

    def claim(self, owner: str, lease_seconds: float, queues: Sequence[str]) -> Claim | None:
        """Take the job of these queues that waits longest, by one conditional UPDATE; None if none waits."""
        waiting = (
            select(Job.id)
            .where(Job.state == State.QUEUED, Job.queue.in_(queues))
            .order_by(Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # claimers at the same moment take different jobs
        )
        with self._write() as session:
            job_id = session.scalar(waiting)
            if job_id is None or not move(
                session,
                State.RUNNING,
                and_(Job.id == job_id, Job.state == State.QUEUED),
                attempt=Job.attempt + 1,
                stalled=Job.stalled + 1,
                owner=owner,
                lease_until=now() + lease_seconds,
                claimed_at=now(),
                started_at=func.coalesce(Job.started_at, now()),
            ):
                return None
            attempt = get_job(session, job_id).attempt
            self._announce(session, job_id, attempt=attempt)
            return Claim(job_id, attempt)

    def job(self, claim: Claim) -> Job:
        """What the claim is for. Raises: JobNotFoundError."""
        with self._read() as session:
            return get_job(session, claim.job_id)

    def upload(self, upload_id: str) -> Upload:
        """One that the job names. Raises: UploadNotFoundError."""
        with self._read() as session:
            return get_upload(session, upload_id)

    def upload_keys(self, upload: Upload) -> list[str]:
        """Where its bytes are, in order."""
        with self._read() as session:
            return [*session.scalars(select(Part.key).where(Part.content == upload.content).order_by(Part.offset))]

    def states(self, claim: Claim) -> dict[str, Artifact]:
        """The training states that the job has, by name."""
        query = select(Artifact).where(Artifact.job_id == claim.job_id, Artifact.kind == "state")
        with self._read() as session:
            return {artifact.name: artifact for artifact in session.scalars(query)}

    def renew(self, claim: Claim, lease_seconds: float) -> Orders:
        """Keep the lease; returns what the user wants meanwhile. Raises: LeaseLostError."""
        with self._guarded(claim, lease_until=now() + lease_seconds) as session:
            job = get_job(session, claim.job_id)
            used = job.used_seconds + job.updated_at - (job.claimed_at or job.updated_at)
            time_is_up = job.max_seconds is not None and used > job.max_seconds
            return Orders(cancel=job.cancel_requested, pause=job.pause_requested, time_is_up=time_is_up)

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
            session.add(new_event(claim.job_id, claim.attempt, kind, dict(data)))

    def add_log(self, claim: Claim, text: str) -> None:
        """Append to the training log. Raises: LeaseLostError."""
        with self._guarded(claim) as session:
            session.add(LogChunk(job_id=claim.job_id, attempt=claim.attempt, text=text))

    def add_state(self, claim: Claim, name: str, stored: Stored, *, epoch: int, step: int) -> Stored | None:
        """Point the job to a newer state file; returns the one it replaces. Raises: LeaseLostError.

        Getting further than any attempt before clears the count of attempts without progress.
        """
        with self._guarded(claim) as session:
            job = get_job(session, claim.job_id)
            if (epoch, step) > (job.reached_epoch, job.reached_step):
                job.reached_epoch, job.reached_step, job.stalled = epoch, step, 0
            old = session.get(Artifact, (claim.job_id, "state", name))
            replaced = Stored(old.key, old.sha256, old.size) if old else None
            session.merge(_artifact(claim, "state", name, stored))
        return replaced

    def release(self, claim: Claim, *, charged: bool, lost: str | None = None) -> State:
        """End the attempt without an end of the job; returns what became of the job. Raises: LeaseLostError.

        Args:
            charged: the attempt counts towards those without progress.
            lost: how the child was lost, as an event.
        """
        with self._guarded(claim) as session:
            became = self._put_back(session, claim.job_id, Job.id == claim.job_id, charged=charged, lost=lost)
            if became is None:
                raise LeaseLostError(f"job {claim.job_id} does not run")
            return became

    def succeed(
        self,
        claim: Claim,
        report: Mapping[str, Any],
        outputs: Mapping[str, Stored],
        progress: Mapping[str, Any],
    ) -> list[Stored]:
        """Result, report, files and final state, in one guarded transaction. Raises: LeaseLostError.

        Like every end it forgets the training state, and returns the files that are free now.
        """
        reached = {"report": dict(report), "outcome": _outcome(report), "progress": dict(progress)}
        with self._finish(claim, State.SUCCEEDED, outputs, **reached) as session:
            for side in _SIDES:
                if report[side] is not None:
                    session.add_all(_results(claim.job_id, side, report[side]))
            return drop_state(session, claim.job_id)

    def fail(
        self, claim: Claim, failure: Mapping[str, Any], outputs: Mapping[str, Stored], *, keep_state: bool = False
    ) -> list[Stored]:
        """End with a reason; files that were reached are kept. Raises: LeaseLostError."""
        with self._finish(claim, State.FAILED, outputs, failure=dict(failure)) as session:
            return [] if keep_state else drop_state(session, claim.job_id)

    def cancelled(self, claim: Claim) -> list[Stored]:
        """Say cancelled; the process is dead. Raises: LeaseLostError."""
        with self._finish(claim, State.CANCELLED, {}) as session:
            return drop_state(session, claim.job_id)

    @contextmanager
    def _finish(self, claim: Claim, state: State, outputs: Mapping[str, Stored], **changes: Any) -> Iterator[Session]:
        used = used_seconds()
        ended = {
            "state": state, "owner": None, "lease_until": None, "finished_at": now(), "used_seconds": used, **changes,
        }  # fmt: skip
        with self._guarded(claim, **ended) as session:
            self._announce(session, claim.job_id)
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
            if not move(session, target, mine, **changes):
                raise LeaseLostError(f"attempt {claim.attempt} no longer owns job {claim.job_id}")
            yield session


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


def _outcome(report: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, and the accuracies that it is about."""
    sides = {side: report[side] and {name: report[side][name] for name in ("clean", "robust")} for side in _SIDES}
    return {"verdict": report["verdict"]["kind"], **sides}


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
