"""/jobs: submit, look, cancel, delete."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from api import views
from api.errors import problem
from api.services import Provided, Services
from api.submit import submit
from jobs.errors import StorageError
from jobs.states import FINAL, State
from jobs.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"])
_POLL_SECONDS = 0.25
_RETRY_AFTER = "5"


def _detail(job: Job, services: Services) -> dict[str, Any]:
    return views.job_detail(job, services.repository.queue_position(job))


@router.post("", status_code=202, summary="Submit a job", openapi_extra={"x-temper-body": "submit"})
async def create_job(request: Request, services: Provided) -> JSONResponse:
    """Multipart: files `checkpoint` and `data`, a `spec` (JSON text), and the form fields architecture, defense,
    eps, norm, epochs, which override it. JSON: the spec, with `checkpoint` and `data` as references.
    """
    job = await submit(request, services)
    body = await run_in_threadpool(_detail, job, services)
    return JSONResponse(body, 202, {"Location": f"/jobs/{job.id}"})


@router.get("", summary="List jobs, newest first")
def list_jobs(
    services: Provided,
    state: State | None = None,
    defense: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """One page; `next` is the cursor of the page after, or null."""
    after = views.decode_cursor(cursor) if cursor else None
    jobs = services.repository.page(state=state, defense=defense, limit=limit + 1, after=after)
    more = len(jobs) > limit
    items = [views.job_summary(job) for job in jobs[:limit]]
    return {"items": items, "next": views.encode_cursor(jobs[limit - 1]) if more else None}


@router.get("/{job_id}", summary="One job")
async def get_job(job_id: str, services: Provided, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> dict[str, Any]:
    """With `wait`, answers when the state, phase or epoch changes, or after so many seconds."""
    job = await run_in_threadpool(services.repository.job, job_id)
    seen = _moment(job)
    deadline = asyncio.get_running_loop().time() + wait
    while job.state not in FINAL and _moment(job) == seen and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        job = await run_in_threadpool(services.repository.job, job_id)
    return await run_in_threadpool(_detail, job, services)


def _moment(job: Job) -> tuple[Any, ...]:
    return job.state, job.phase, job.attempt, job.progress.get("epoch")


@router.get("/{job_id}/report", summary="The report", responses={202: {"description": "The job is not done yet."}})
def get_report(job_id: str, services: Provided) -> JSONResponse:
    """200 with the report; 202 with `Retry-After` while the job runs; 409 if it failed or was cancelled."""
    job, report = services.repository.report(job_id)
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


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(job_id: str, services: Provided) -> JSONResponse:
    """200 once it is cancelled; 202 while its process is being stopped: `state` turns when that is dead."""
    job = services.repository.request_cancel(job_id)
    return JSONResponse(_detail(job, services), 200 if job.state == State.CANCELLED else 202)


@router.post("/{job_id}/pause", summary="Pause a running job")
def pause_job(job_id: str, services: Provided) -> JSONResponse:
    """200 once it is paused; 202 while it saves its state: `state` turns when its process is dead and the GPU free."""
    job = services.repository.request_pause(job_id)
    return JSONResponse(_detail(job, services), 200 if job.state == State.PAUSED else 202)


@router.post("/{job_id}/resume", summary="Go on with a paused job, or one that no room was left for")
def resume_job(job_id: str, services: Provided) -> dict[str, Any]:
    """It is queued again, and goes on from where it was paused."""
    job = services.repository.resume(job_id)
    services.ring(job.queue, job.id)
    return _detail(job, services)


@router.delete("/{job_id}", summary="Delete a finished job")
def delete_job(job_id: str, services: Provided) -> dict[str, Any]:
    """Frees its files, and the uploads that no other job uses; says how many bytes."""
    freed = services.repository.delete(job_id)
    with contextlib.suppress(StorageError):  # the rows are gone, so the files are swept
        services.storage.delete([stored.key for stored in freed])
    return {"id": job_id, "freed_bytes": sum(stored.size for stored in freed)}
