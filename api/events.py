"""/jobs/{id}/events: what happened, as a live stream or as JSON pages."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool

from api import views
from api.caller import READ, Jobs, Stay, Staying
from api.shapes import EventPage
from jobs.repository import JobRepository
from jobs.states import FINAL

router = APIRouter(prefix="/jobs", tags=["jobs"])
_POLL_SECONDS = 0.25
_PING_SECONDS = 15
_PAGE = 200
MAX_ID = 2**63 - 1


@router.get(
    "/{job_id}/events",
    summary="Events of a job",
    dependencies=[READ],
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def get_events(
    job_id: str,
    jobs: Jobs,
    stay: Staying,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: Annotated[str, Header()] = "",
    after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = _PAGE,
) -> Response:
    """With `Accept: text/event-stream` a live stream that ends with the job; `Last-Event-ID` resumes it.

    Otherwise a page of events after the id `after`; `next` is the id to go on from, or null.
    """
    await run_in_threadpool(jobs.job, job_id)  # 404 before the stream starts
    if "text/event-stream" in accept:
        seen = int(last_event_id) if re.fullmatch(r"[0-9]{1,18}", last_event_id) else after
        return EventSourceResponse(_stream(job_id, jobs, seen, stay), headers={"Cache-Control": "no-store"})
    events = await run_in_threadpool(jobs.events, job_id, after=after, limit=limit)
    following = events[-1].id if len(events) == limit else None
    return JSONResponse({"items": [views.event_view(event) for event in events], "next": following})


async def _stream(job_id: str, jobs: JobRepository, after: int, stay: Stay) -> AsyncIterator[bytes]:
    """Events with their ids, and between them the progress whenever it changes (without an id: it is not kept)."""
    shown: dict[str, Any] = {}
    last_sent = time.monotonic()
    while not await stay.is_over():
        # the state first: once it is final, every event has been written
        job = await run_in_threadpool(jobs.job, job_id)
        events = await run_in_threadpool(jobs.events, job_id, after=after, limit=_PAGE)
        for event in events:
            after = event.id
            yield format_sse_event(data_str=json.dumps(views.event_view(event)), event=event.type, id=str(event.id))
        if job.progress != shown:
            shown = job.progress
            progress = {"state": job.state, "phase": job.phase, **shown}
            yield format_sse_event(data_str=json.dumps(progress), event="progress")
            last_sent = time.monotonic()
        if job.state in FINAL and len(events) < _PAGE:
            return
        if events:
            last_sent = time.monotonic()
        elif time.monotonic() - last_sent > _PING_SECONDS:
            last_sent = time.monotonic()
            yield format_sse_event(comment="ping")
        if len(events) < _PAGE:
            await asyncio.sleep(_POLL_SECONDS)
