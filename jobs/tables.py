"""The tables. Times are seconds since 1970 by the database's own clock, so that leases are plain arithmetic."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_TENANT = "default"  # of what there was before keys, and of the service without any
_COUNTER = BigInteger().with_variant(Integer, "sqlite")  # where only an INTEGER counts by itself


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, float: Float, str: String}  # noqa: RUF012 - SQLAlchemy's own idiom


class Tenant(Base):
    """Whom jobs and files belong to. Limits that are null are those of the settings."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    max_queued: Mapped[int | None]
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_upload_bytes: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[float]


class ApiKey(Base):
    """A key that was given out. The row outlives its revocation: a service that had keys is never open again."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    label: Mapped[str]
    prefix: Mapped[str]  # shown in lists, and how the row is found
    sha256: Mapped[str]
    scopes: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]

    __table_args__ = (Index("api_keys_by_prefix", "prefix"),)


class BrowserSession(Base):
    """A browser that logged in with a key; it can do what the key can, for as long as that can."""

    __tablename__ = "sessions"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[float]
    expires_at: Mapped[float]


class Idempotency(Base):
    """A request with an Idempotency-Key: worked at until ``lease_until``, or answered once ``answer`` is there."""

    __tablename__ = "idempotency"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    lease_until: Mapped[float]
    fingerprint: Mapped[str | None]
    job_id: Mapped[str | None]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[float]

    __table_args__ = (Index("idempotency_by_age", "created_at"),)


class Upload(Base):
    """A file that a user sends or has sent; several jobs may use it.

    Its bytes are the parts of ``content``, which uploads of one tenant share where they have the same SHA-256.
    """

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str]
    purpose: Mapped[str | None]
    tus_metadata: Mapped[str] = mapped_column(default="")  # as it came, for tus clients
    content: Mapped[str]
    size: Mapped[int | None] = mapped_column(BigInteger)  # of the whole; None: not told yet
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None]  # once it is finished
    standalone: Mapped[bool]  # else it came with a job, and goes with the last one
    keep_seconds: Mapped[float | None]  # once it is finished
    hashed_by: Mapped[str | None]  # who reads it all again to hash it, for as long as
    hashing_until: Mapped[float | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    deleted_at: Mapped[float | None]  # its bytes are gone; a job that has ended still names it

    __table_args__ = (
        Index("uploads_by_content", "content"),
        Index("uploads_by_tenant", "tenant_id", "sha256"),
        Index("uploads_by_age", "tenant_id", "created_at", "id"),
        Index("uploads_by_expiry", "expires_at"),
    )


class Part(Base):
    """Some bytes of a content, stored under an immutable key; this row makes them exist."""

    __tablename__ = "parts"

    content: Mapped[str] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str]
    crc32: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (Index("parts_by_key", "key"),)


class Job(Base):
    """One job. ``attempt`` is the fencing token: it grows with each claim, and stale attempts cannot write."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str | None]
    tags: Mapped[dict[str, Any]]
    state: Mapped[str]
    phase: Mapped[str | None]
    queue: Mapped[str]
    defense: Mapped[str]
    spec: Mapped[dict[str, Any]]
    checkpoint_upload: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"))
    data_upload: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"))
    attempt: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    stalled: Mapped[int] = mapped_column(default=0)  # attempts in a row that saved nothing new
    lost: Mapped[int] = mapped_column(default=0)  # attempts whose child or worker was lost, over all its life
    reached_epoch: Mapped[int] = mapped_column(default=-1)
    reached_step: Mapped[int] = mapped_column(default=-1)
    keep_seconds: Mapped[float | None]  # after its end
    max_seconds: Mapped[float | None]  # of running, over all attempts
    used_seconds: Mapped[float] = mapped_column(default=0.0)  # by the attempts before this one
    claimed_at: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any]]
    failure: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # the report's head, for lists
    created_at: Mapped[float]
    updated_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index("jobs_by_state", "state", "created_at", "id"),
        Index("jobs_by_tenant", "tenant_id", "created_at", "id"),
        Index("jobs_by_checkpoint", "checkpoint_upload"),
        Index("jobs_by_data", "data_upload"),
    )


class Epoch(Base):
    """A finished epoch; this row makes it exist, however often it was executed."""

    __tablename__ = "epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    metrics: Mapped[dict[str, Any]]


class Event(Base):
    """Something that happened in a job."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_COUNTER, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[float]

    __table_args__ = (Index("events_by_job", "job_id", "id"), {"sqlite_autoincrement": True})


class Artifact(Base):
    """A stored file of a job; this row makes it exist. ``kind`` is "state" or "output"."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int]
    created_at: Mapped[float]


class Result(Base):
    """One measured accuracy: clean, under one attack, or worst case ("robust"); rows, so that jobs compare by query."""

    __tablename__ = "results"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    side: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    attack: Mapped[str]
    norm: Mapped[str | None]
    eps: Mapped[float | None]
    correct: Mapped[int]
    total: Mapped[int]


class LogChunk(Base):
    """Some lines of a job's training log, as they were written."""

    __tablename__ = "logs"

    id: Mapped[int] = mapped_column(_COUNTER, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    text: Mapped[str]

    __table_args__ = (Index("logs_by_job", "job_id", "id"), {"sqlite_autoincrement": True})


class Message(Base):
    """A webhook to be sent: the outbox. Written in the transaction that ends the job; kept until it is delivered."""

    __tablename__ = "outbox"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    body: Mapped[dict[str, Any]]
    tries: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float]
    created_at: Mapped[float]
    delivered_at: Mapped[float | None]
    given_up_at: Mapped[float | None]
    error: Mapped[str | None]

    __table_args__ = (Index("outbox_by_due", "delivered_at", "given_up_at", "due_at"),)


class WorkerRow(Base):
    """A worker that said lately that it is there."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[str]
    sandbox: Mapped[str]
    seen_at: Mapped[float]


class Total(Base):
    """What deleted jobs add to sums that only grow."""

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class Identity(Base):
    """One row: which service this is. Its store says the same, so that nobody else's files are taken for its own."""

    __tablename__ = "identity"

    id: Mapped[str] = mapped_column(primary_key=True)


class SigningKeyRow(Base):
    """A public key with which certificates were signed; ``revoked_at``: since when nothing of it is believed."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the key
    public_key: Mapped[str]  # PEM
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class Duty(Base):
    """Something that one process at a time does for all, for as long as its lease runs."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    lease_until: Mapped[float]
