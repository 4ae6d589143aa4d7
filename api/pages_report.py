"""/jobs/{id}/report as a page: with everything inside it, and as a file to be sent around."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ValidationError

from api import views
from api.caller import READ, Jobs
from api.pages import HEADERS, PageRoute, page
from api.services import Provided, Services
from core.embedding import NAME as EMBEDDING
from core.embedding import Embedding
from core.examples import NAME as EXAMPLES
from core.examples import Examples
from core.report import Report
from jobs.states import FINAL, State
from jobs.tables import Artifact
from web.report.page import About, Pictures, content_policy, report_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_ASK_AGAIN = 5
M = TypeVar("M", bound=BaseModel)
_MOST_BYTES = 32 << 20  # of a file of pictures; ours are far below


class _EmbeddingFile(BaseModel):
    before: Embedding
    after: Embedding | None


@router.get("/jobs/{job_id}/report", dependencies=[READ])
def show_report(
    request: Request,
    job_id: str,
    jobs: Jobs,
    services: Provided,
    download: Annotated[bool, Query(description="As a file that needs no service.")] = False,
) -> Response:
    """200 with the report; 202 while the job runs, asking again by itself; 409 if it failed or was cancelled."""
    job, content = jobs.report(job_id)
    if job.state != State.SUCCEEDED:
        if job.state in FINAL:
            failure = job.failure or {}
            why = failure.get("detail", f"the job was {job.state}")
            return _none(request, f"there is no report: {why}", failure.get("hint", ""))
        waiting = page(request, "report/waiting.html", 202, job=views.job_summary(job), seconds=_ASK_AGAIN)
        waiting.headers["Retry-After"] = str(_ASK_AGAIN)
        return waiting
    try:
        report = Report.model_validate(content)
    except ValidationError:
        return _none(
            request, "another version of Temper wrote this report; there is no page of it", "it is there as JSON"
        )
    about = About(job.id, job.name, views.iso(job.finished_at))
    shown = report_page(report, about, _pictures(jobs.artifacts(job_id, "output"), services), alone=download)
    headers = {**HEADERS, "Content-Security-Policy": f"{content_policy()}; frame-ancestors 'none'"}
    if download:
        headers["Content-Disposition"] = f'attachment; filename="report-{job.id}.html"'
    return HTMLResponse(shown, headers=headers)


def _none(request: Request, detail: str, hint: str) -> Response:
    status = HTTPStatus.CONFLICT
    return page(request, "dashboard/error.html", status, phrase=status.phrase, detail=detail, hint=hint)


def _pictures(outputs: dict[str, Artifact], services: Services) -> Pictures:
    """What there is of them: a job of an earlier version has none, and neither has one that could not draw them."""
    examples = _read(outputs.get(EXAMPLES), Examples, services)
    embedding = _read(outputs.get(EMBEDDING), _EmbeddingFile, services)
    if embedding is None:
        return Pictures(examples)
    return Pictures(examples, embedding.before, embedding.after)


def _read(artifact: Artifact | None, model: type[M], services: Services) -> M | None:
    if artifact is None or artifact.size > _MOST_BYTES:
        return None
    try:
        return model.model_validate_json(services.copies.get(artifact).read(0, artifact.size))
    except ValidationError:
        return None
