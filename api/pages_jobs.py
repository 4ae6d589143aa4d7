"""Pages of jobs: the list at /, one job as it runs, and the buttons that cancel, pause, resume and delete it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api import jobs as api_jobs
from api import views
from api.caller import READ, WRITE, Jobs
from api.pages import PageRoute, go, page
from api.services import Provided
from api.watching import Watched
from core.defenses import DEFENSES
from jobs.repository import JobRepository
from jobs.states import State
from jobs.tables import Job

router = APIRouter(include_in_schema=False, route_class=PageRoute)
PAGE = 25


@router.get("/", dependencies=[READ])
def list_jobs(
    request: Request,
    jobs: Jobs,
    state: Annotated[str, Query(max_length=20)] = "",
    defense: Annotated[str, Query(max_length=100)] = "",
    cursor: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Newest first, with their states as they change."""
    found = list_of(jobs, state, defense, cursor, PAGE + 1)
    return page(
        request,
        "dashboard/jobs.html",
        jobs=[row(job) for job in found[:PAGE]],
        following=views.encode_cursor(found[PAGE - 1]) if len(found) > PAGE else None,
        chosen={"state": state, "defense": defense, "cursor": cursor},
        states=[each.value for each in State],
        defenses=DEFENSES.names(),
    )


@router.get("/jobs", dependencies=[READ])
def go_to_list() -> Response:
    """For who types what the API calls it."""
    return go("/")


@router.get("/jobs/{job_id}", dependencies=[READ])
async def show_job(request: Request, job_id: str, jobs: Jobs) -> Response:
    """As it is now; /live/jobs/ID brings what changes."""
    watched = Watched(job_id, jobs)
    await run_in_threadpool(watched.look)
    return page(request, "dashboard/job.html", **watched.shown())


@router.post("/jobs/{job_id}/cancel", dependencies=[WRITE])
def cancel(job_id: str, jobs: Jobs) -> Response:
    """As the API's."""
    api_jobs.cancel_job(job_id, jobs)
    return go(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/pause", dependencies=[WRITE])
def pause(job_id: str, jobs: Jobs) -> Response:
    """As the API's."""
    api_jobs.pause_job(job_id, jobs)
    return go(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/resume", dependencies=[WRITE])
def resume(job_id: str, jobs: Jobs, services: Provided) -> Response:
    """As the API's."""
    api_jobs.resume_job(job_id, jobs, services)
    return go(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/delete", dependencies=[WRITE])
def delete(job_id: str, jobs: Jobs, services: Provided) -> Response:
    """As the API's DELETE, which no form can send."""
    api_jobs.delete_job(job_id, jobs, services)
    return go("/")


def list_of(jobs: JobRepository, state: str, defense: str, cursor: str, limit: int) -> list[Job]:
    """The jobs that the list shows. Raises: SpecInvalidError for what is no cursor."""
    after = views.decode_cursor(cursor) if cursor else None
    return jobs.page(state=state or None, defense=defense or None, limit=limit, after=after)


def row(job: Job) -> dict[str, Any]:
    """A job as listed."""
    model, threat = job.spec.get("model", {}), job.spec.get("threat", {})
    return {**views.job_summary(job), "architecture": _architecture(model), "threat": threat}


def _architecture(model: dict[str, Any]) -> str:
    """Its name as a user writes it."""
    architecture = model.get("architecture", {})
    name = architecture.get("name", "")
    return f"{name}/{architecture['model']}" if "model" in architecture else name
