"""/live: what pages show, as it changes, as server-sent events that each hold a piece of markup."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool

from api.caller import READ, Jobs, Stay, Staying
from api.pages import frame
from api.pages_jobs import PAGE, list_of, row
from api.watching import Watched
from jobs.repository import JobRepository
from web.environment import render

router = APIRouter(prefix="/live", include_in_schema=False)
_POLL_SECONDS = 1.0
_PING_SECONDS = 15
_HEADERS = {"Cache-Control": "no-store"}


@router.get("/jobs", dependencies=[READ])
async def live_jobs(
    jobs: Jobs,
    stay: Staying,
    state: Annotated[str, Query(max_length=20)] = "",
    defense: Annotated[str, Query(max_length=100)] = "",
    cursor: Annotated[str, Query(max_length=200)] = "",
) -> EventSourceResponse:
    """Of the list: an event by each job's id with its state, and `changed` where the page has other jobs now."""
    chosen = (state, defense, cursor)
    await run_in_threadpool(list_of, jobs, *chosen, 1)  # what is no cursor is said before the stream starts
    return EventSourceResponse(_paced(_list(jobs, chosen), stay), headers=_HEADERS)


@router.get("/jobs/{job_id}", dependencies=[READ])
async def live_job(request: Request, job_id: str, jobs: Jobs, stay: Staying) -> EventSourceResponse:
    """Of one job: an event by the name of each piece of its page that changed, and `done` after the last one."""
    watched = Watched(job_id, jobs)
    await run_in_threadpool(watched.look)  # 404 before the stream starts
    return EventSourceResponse(_paced(_job(watched, frame(request)), stay), headers=_HEADERS)


async def _paced(rounds: AsyncIterator[list[bytes]], stay: Stay) -> AsyncIterator[bytes]:
    """One round after the other, with a sign of life where there is nothing new."""
    last_sent = time.monotonic()
    async for messages in rounds:
        if await stay.is_over():
            return
        for message in messages:
            yield message
        if messages:
            last_sent = time.monotonic()
        elif time.monotonic() - last_sent > _PING_SECONDS:
            last_sent = time.monotonic()
            yield format_sse_event(comment="ping")


async def _list(jobs: JobRepository, chosen: tuple[str, str, str]) -> AsyncIterator[list[bytes]]:
    listed: list[str] | None = None
    shown: dict[str, str] = {}

    def look() -> list[dict[str, Any]]:
        return [row(job) for job in list_of(jobs, *chosen, PAGE)]

    while True:
        rows = await run_in_threadpool(look)
        now = [each["id"] for each in rows]
        messages = []
        if listed is not None and now != listed:
            messages.append(format_sse_event(data_str="", event="changed"))
        listed = now
        pieces = {each["id"]: render("dashboard/jobs_state.html", job=each) for each in rows}
        messages += _changed(pieces, shown)
        shown = pieces
        yield messages
        await asyncio.sleep(_POLL_SECONDS)


async def _job(watched: Watched, framed: dict[str, Any]) -> AsyncIterator[list[bytes]]:
    shown: dict[str, str] = {}
    while True:
        pieces = await run_in_threadpool(watched.pieces, framed)
        messages = _changed(pieces, shown)
        shown = pieces
        if watched.ended:
            yield [*messages, format_sse_event(data_str="", event="done")]
            return
        yield messages
        await asyncio.sleep(_POLL_SECONDS)
        await run_in_threadpool(watched.look)


def _changed(pieces: dict[str, str], shown: dict[str, str]) -> list[bytes]:
    return [
        format_sse_event(data_str=markup, event=name) for name, markup in pieces.items() if shown.get(name) != markup
    ]
