"""How rows are shown."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import cast

from api import shapes
from api.errors import SpecInvalidError
from api.shapes import DataSource, Failure, JobDetail, JobSummary, Links, Outcome, Progress
from jobs.session import ID
from jobs.states import State
from jobs.tables import Event, Job, Upload


def iso(seconds: float | None) -> str | None:
    """UTC, ISO 8601."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def job_summary(job: Job) -> JobSummary:
    """A job as listed."""
    return {
        "id": job.id,
        "name": job.name,
        "tags": job.tags,
        "defense": job.defense,
        "queue": job.queue,
        "state": job.state,
        "phase": job.phase if job.state == State.RUNNING else None,
        "attempt": job.attempt,
        "progress": cast(Progress, job.progress),
        "cancel_requested": job.cancel_requested,
        "pause_requested": job.pause_requested,
        "failure": cast("Failure | None", job.failure),
        "outcome": cast("Outcome | None", job.outcome),
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "links": links(job.id),
    }


def job_detail(job: Job, queue_position: int | None) -> JobDetail:
    """A job on its own: with what it was asked to do."""
    data: DataSource = {"upload": job.data_upload} if job.data_upload else {"dataset": job.spec["data"]["dataset"]}
    return {
        **job_summary(job),
        "queue_position": queue_position,
        "checkpoint": {"upload": job.checkpoint_upload} if job.checkpoint_upload else None,
        "data": data,
        "spec": job.spec,
    }


def links(job_id: str) -> Links:
    """Where the rest of a job is."""
    base = f"/jobs/{job_id}"
    return {
        "self": base,
        "events": f"{base}/events",
        "logs": f"{base}/logs",
        "report": f"{base}/report",
        "checkpoint": f"{base}/checkpoint",
        "artifacts": f"{base}/artifacts",
        "cancel": f"{base}/cancel",
        "pause": f"{base}/pause",
    }


def event_view(event: Event) -> shapes.Event:
    """An event."""
    return {"id": event.id, "type": event.type, "at": iso(event.created_at), "data": event.data}


def upload_view(upload: Upload) -> shapes.Upload:
    """An upload."""
    return {
        "id": upload.id,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "state": "finished" if upload.finished_at is not None else "receiving",
        "size": upload.size,
        "received": upload.received,
        "sha256": upload.sha256,
        "created_at": iso(upload.created_at),
        "finished_at": iso(upload.finished_at),
        "expires_at": iso(upload.expires_at),
        "links": {"self": f"/uploads/{upload.id}"},
    }


def encode_cursor(row: Job | Upload) -> str:
    """An opaque cursor to what comes after this one."""
    return base64.urlsafe_b64encode(json.dumps([row.created_at, row.id]).encode()).decode()


def decode_cursor(cursor: str) -> tuple[float, str]:
    """The inverse of ``encode_cursor``."""
    try:
        created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor))
        if not ID.fullmatch(row_id):
            raise ValueError("no id")
        return float(created_at), row_id
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise SpecInvalidError.field("cursor", 'not a cursor: pass the "next" of the page before') from error
