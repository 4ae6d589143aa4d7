"""/jobs/{id}/logs: the training log, from its end or as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.caller import READ, Jobs, Stay, Staying
from jobs.repository import JobRepository
from jobs.states import FINAL

router = APIRouter(prefix="/jobs", tags=["jobs"])
_POLL_SECONDS = 0.5
_TEXT = "text/plain; charset=utf-8"


@router.get("/{job_id}/logs", summary="The training log", response_class=PlainTextResponse, dependencies=[READ])
async def get_log(
    job_id: str,
    jobs: Jobs,
    stay: Staying,
    tail: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    follow: bool = False,
) -> Response:
    """As it was written, of all attempts; `tail`: only so many lines; `follow`: also what comes, until the job ends."""
    await run_in_threadpool(jobs.job, job_id)  # 404 before the stream starts
    chunks = await run_in_threadpool(jobs.log, job_id)
    lines = "".join(chunk.text for chunk in chunks).splitlines(keepends=True)
    text = "".join(lines if tail is None else lines[max(0, len(lines) - tail) :])
    if not follow:
        return PlainTextResponse(text)
    after = chunks[-1].id if chunks else 0
    return StreamingResponse(_follow(text, job_id, after, jobs, stay), media_type=_TEXT)


async def _follow(text: str, job_id: str, after: int, jobs: JobRepository, stay: Stay) -> AsyncIterator[str]:
    yield text
    while not await stay.is_over():
        # the state first: once it is final, every line has been written
        job = await run_in_threadpool(jobs.job, job_id)
        for chunk in await run_in_threadpool(jobs.log, job_id, after=after):
            after = chunk.id
            yield chunk.text
        if job.state in FINAL:
            return
        await asyncio.sleep(_POLL_SECONDS)
