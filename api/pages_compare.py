"""/compare: what several jobs reached, side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.caller import READ, Jobs
from api.pages import PageRoute, page
from core.report import Report
from jobs.errors import JobNotFoundError
from jobs.repository import JobRepository
from web.dashboard.comparison import MOST, Compared, differences, front, picture

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/compare", dependencies=[READ])
def compare(request: Request, jobs: Jobs, job: Annotated[list[str] | None, Query(max_length=100)] = None) -> Response:
    """Those whose ids the address has; what has no report yet, or is gone, is named and left out."""
    asked = list(dict.fromkeys(job or []))
    compared, left_out = [], [f"{name}: at most {MOST} jobs fit into one picture" for name in asked[MOST:]]
    for name in asked[:MOST]:
        try:
            found = _one(name, jobs)
        except JobNotFoundError:
            found = f"{name}: there is no such job, or no longer"
        if isinstance(found, Compared):
            compared.append(found)
        else:
            left_out.append(found)
    return page(
        request,
        "dashboard/compare.html",
        compared=compared,
        left_out=left_out,
        notes=differences(compared),
        front=front(compared),
        picture=picture(compared) if compared else "",
    )


def _one(job_id: str, jobs: JobRepository) -> Compared | str:
    """A job with its report, or why it has none. Raises: JobNotFoundError."""
    job, report = jobs.report(job_id)
    if report is None:
        return f"{job.name or job.id} has no report: it is {job.state}"
    return Compared(job.id, job.name or job.id, Report.model_validate(report))
