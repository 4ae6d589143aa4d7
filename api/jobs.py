"""/jobs: submit, look, cancel, delete."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from api import views
from api.caller import READ, WRITE, Asking, Jobs, Uploads
from api.errors import problem
from api.receive import MEASURED
from api.repeat import once
from api.services import Provided
from api.shapes import Deleted, JobDetail, JobPage, JobSummary, Preview
from api.submit import Sources, create, preview, submit
from core.report import Report
from jobs.errors import StorageError
from jobs.repository import JobRepository
from jobs.states import FINAL, State
from jobs.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"], max_body_size=MEASURED)
_POLL_SECONDS = 0.25
_RETRY_AFTER = "5"
_LATER: dict[int | str, dict[str, Any]] = {202: {"model": JobDetail, "description": "It is asked for; not yet so."}}


def _detail(job: Job, jobs: JobRepository) -> JobDetail:
    return views.job_detail(job, jobs.queue_position(job))


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    dependencies=[WRITE],
    response_model=JobDetail,
    responses={200: {"model": Preview, "description": "With `dry_run`: nothing was made."}},
    openapi_extra={"x-temper-body": "submit"},
)
async def create_job(
    request: Request,
    jobs: Jobs,
    uploads: Uploads,
    asking: Asking,
    services: Provided,
    idempotency_key: Annotated[str | None, Header(description="The same for every try; kept for a day.")] = None,
    dry_run: Annotated[bool, Query(description="Only check it, and tell what it would take.")] = False,
) -> JSONResponse:
    """Multipart: files `checkpoint` and `data`, a `spec` (JSON text), and the form fields architecture, defense,
    eps, norm, epochs, expires_after, which override it. JSON: the spec, with `checkpoint` and `data` as references.
    With `dry_run`, 200 with the spec that would run and an estimate; the files need not be there yet.
    """
    sources = Sources(jobs, uploads)
    if dry_run:
        looked_at = partial(preview, sources=sources, services=services)
        return JSONResponse(await submit(request, looked_at, sources, services))
    async with once(idempotency_key, services.requests_of(asking.tenant_id)) as repeatable:
        job = partial(create, once=repeatable, sources=sources, services=services)
        submitted = await submit(request, job, sources, services)
    headers = {"Location": f"/jobs/{submitted.job_id}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(submitted.answer, 202, headers)


@router.get("", summary="List jobs, newest first", dependencies=[READ])
def list_jobs(
    jobs: Jobs,
    state: State | None = None,
    defense: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> JobPage:
    """One page; `next` is the cursor of the page after, or null."""
    after = views.decode_cursor(cursor) if cursor else None
    found = jobs.page(state=state, defense=defense, limit=limit + 1, after=after, specs=False)
    more = len(found) > limit
    items = [views.job_summary(job) for job in found[:limit]]
    return {"items": items, "next": views.encode_cursor(found[limit - 1]) if more else None}


@router.get("/{job_id}", summary="One job", dependencies=[READ], response_model=JobDetail)
async def get_job(job_id: str, jobs: Jobs, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> JSONResponse:
    """With `wait`, answers when the state, phase or epoch changes, or after so many seconds."""
    if wait:
        await _change(job_id, jobs, wait)
    # in one thread at once, and as it is: this is what everybody polls
    return JSONResponse(await run_in_threadpool(lambda: _detail(jobs.job(job_id), jobs)))


async def _change(job_id: str, jobs: JobRepository, seconds: float) -> None:
    job = await run_in_threadpool(jobs.job, job_id)
    seen = _moment(job)
    deadline = asyncio.get_running_loop().time() + seconds
    while job.state not in FINAL and _moment(job) == seen and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        job = await run_in_threadpool(jobs.job, job_id)


def _moment(job: Job) -> tuple[Any, ...]:
    return job.state, job.phase, job.attempt, job.progress.get("epoch")


@router.get(
    "/{job_id}/report",
    summary="The report",
    dependencies=[READ],
    response_model=Report,
    responses={202: {"model": JobSummary, "description": "The job is not done yet."}},
)
def get_report(job_id: str, jobs: Jobs) -> JSONResponse:
    """200 with the report; 202 with `Retry-After` while the job runs; 409 if it failed or was cancelled."""
    job, report = jobs.report(job_id)
    if job.state == State.SUCCEEDED:
        return JSONResponse(report)
    if job.state in FINAL:
        failure = job.failure or {}
        detail = failure.get("detail", f"the job was {job.state}")
        return problem(
            409,
            f"job_{job.state}",
            f"there is no report: {detail}",
            hint=failure.get("hint"),
            failure=failure,
        )
    return JSONResponse(views.job_summary(job), 202, {"Retry-After": _RETRY_AFTER})


@router.post(
    "/{job_id}/cancel", summary="Cancel a job", dependencies=[WRITE], response_model=JobDetail, responses=_LATER
)
def cancel_job(job_id: str, jobs: Jobs) -> JSONResponse:
    """200 once it is cancelled; 202 while its process is being stopped: `state` turns when that is dead."""
    job = jobs.request_cancel(job_id)
    return JSONResponse(_detail(job, jobs), 200 if job.state == State.CANCELLED else 202)


@router.post(
    "/{job_id}/pause", summary="Pause a running job", dependencies=[WRITE], response_model=JobDetail, responses=_LATER
)
def pause_job(job_id: str, jobs: Jobs) -> JSONResponse:
    """200 once it is paused; 202 while it saves its state: `state` turns when its process is dead and the GPU free."""
    job = jobs.request_pause(job_id)
    return JSONResponse(_detail(job, jobs), 200 if job.state == State.PAUSED else 202)


@router.post(
    "/{job_id}/resume", summary="Go on with a paused job, or one that no room was left for", dependencies=[WRITE]
)
def resume_job(job_id: str, jobs: Jobs, services: Provided) -> JobDetail:
    """It is queued again, and goes on from where it was paused."""
    job = jobs.resume(job_id)
    services.ring(job.queue, job.id)
    return _detail(job, jobs)


@router.delete("/{job_id}", summary="Delete a finished job", dependencies=[WRITE])
def delete_job(job_id: str, jobs: Jobs, services: Provided) -> Deleted:
    """Frees its files, and those that came with it and that no other job uses; says how many bytes."""
    freed = jobs.delete(job_id)
    with contextlib.suppress(StorageError):  # the rows are gone, so the files are swept
        services.storage.delete([stored.key for stored in freed])
    return {"id": job_id, "freed_bytes": sum(stored.size for stored in freed)}
