"""How rows are shown."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from api.errors import SpecInvalidError
from jobs.states import State
from jobs.tables import Event, Job


def iso(seconds: float | None) -> str | None:
    """UTC, ISO 8601."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def job_summary(job: Job) -> dict[str, Any]:
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
        "progress": job.progress,
        "cancel_requested": job.cancel_requested,
        "pause_requested": job.pause_requested,
        "failure": job.failure,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "links": links(job.id),
    }


def job_detail(job: Job, queue_position: int | None) -> dict[str, Any]:
    """A job on its own: with what it was asked to do."""
    data = {"upload": job.data_upload} if job.data_upload else {"dataset": job.spec["data"]["dataset"]}
    return {
        **job_summary(job),
        "queue_position": queue_position,
        "checkpoint": {"upload": job.checkpoint_upload} if job.checkpoint_upload else None,
        "data": data,
        "spec": job.spec,
    }


def links(job_id: str) -> dict[str, str]:
    """Where the rest of a job is."""
    base = f"/jobs/{job_id}"
    return {
        "self": base,
        **{
            name: f"{base}/{name}"
            for name in ("events", "logs", "report", "checkpoint", "artifacts", "cancel", "pause")
        },
    }


def event_view(event: Event) -> dict[str, Any]:
    """An event."""
    return {"id": event.id, "type": event.type, "at": iso(event.created_at), "data": event.data}


def encode_cursor(job: Job) -> str:
    """An opaque cursor to the jobs after this one."""
    return base64.urlsafe_b64encode(json.dumps([job.created_at, job.id]).encode()).decode()


def decode_cursor(cursor: str) -> tuple[float, str]:
    """The inverse of ``encode_cursor``."""
    try:
        created_at, job_id = json.loads(base64.urlsafe_b64decode(cursor))
        return float(created_at), str(job_id)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise SpecInvalidError.field("cursor", 'not a cursor: pass the "next" of the page before') from error
