"""/new: the form that submits a job: fields from the spec's schema, errors from its validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api import catalog
from api.caller import WRITE, Jobs, Uploads
from api.errors import SpecInvalidError
from api.estimate import DataId, estimate
from api.job_form import receive
from api.pages import PageRoute, go, page, told
from api.receive import MEASURED
from api.services import Provided, Services
from api.shapes import Estimate
from api.submit import Sources, create
from core.defenses import DEFENSES
from core.spec import JobSpec
from jobs.errors import JobsError
from jobs.states import State
from jobs.tables import Upload
from web.dashboard.fields import Values, assemble, describe, paths

router = APIRouter(include_in_schema=False, route_class=PageRoute, max_body_size=MEASURED)
_USUAL = {"defense.name": "temper"}
_SAMPLE = "resnet18-cifar"  # whose defaults are shown until there is an architecture
_SHOWN = 50  # of uploads and jobs to start from
_SOURCES = ("checkpoint_from", "data_from")
_HANDLED = (JobsError, SpecInvalidError, RequestValidationError, HTTPException)


@router.get("/new", dependencies=[WRITE])
def new_job(request: Request, jobs: Jobs, uploads: Uploads, services: Provided) -> Response:
    """The empty form, or with what the address says; asked for again as algorithms are chosen, for their fields."""
    values = {**_USUAL, **{key: value for key, value in request.query_params.items() if key in _names()}}
    return page(request, "dashboard/new.html", **_form(values, Sources(jobs, uploads), services))


@router.post("/new", dependencies=[WRITE])
async def submit(request: Request, jobs: Jobs, uploads: Uploads, services: Provided) -> Response:
    """To the job's page; or the form again, with what was filled in, the files that came, and what is wrong."""
    sources = Sources(jobs, uploads)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, "send the form as multipart/form-data")
    async with receive(request, uploads, services, _names()) as (values, files):
        try:
            content, used = _content(values, files)
            submitted = await run_in_threadpool(create, content, used, None, sources, services)
        except _HANDLED as error:
            # not raised: the files stay for an hour, so that nobody has to send them again
            kept = values | {f"{name}_from": f"upload:{upload.id}" for name, upload in files.items()}
            return await run_in_threadpool(_again, request, error, kept, sources, services)
    address = f"/jobs/{submitted.job_id}"
    return Response(headers={"HX-Redirect": address}) if "HX-Request" in request.headers else go(address)


def _again(request: Request, error: Exception, values: Values, sources: Sources, services: Services) -> Response:
    _, detail, hint, _ = told(request, error)
    whole = [{"field": "", "message": f"{detail}; {hint}" if hint else detail}]
    rows = [_on_the_form(row) for row in error.errors] if isinstance(error, SpecInvalidError) else whole
    form = _form({**_USUAL, **values}, sources, services, rows)
    return page(request, "dashboard/new.html", HTTPStatus.UNPROCESSABLE_ENTITY, **form)


def _on_the_form(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is missing is not sent by curl here."""
    here = {"checkpoint": "choose a file, or what to start from", "data": "choose a file, or what is there already"}
    if row["field"] in here and row["message"].startswith("send the file"):
        return {**row, "message": here[row["field"]]}
    return row


def _content(values: Values, files: Mapping[str, Upload]) -> tuple[dict[str, Any], dict[str, Upload]]:
    """The body that the API would get, and the files: one that was sent goes before one that was chosen."""
    content = {"model": {}} | assemble(describe(_schema(), values, {}).fields(), values)
    checkpoint, data = (values.get(name, "").partition(":")[::2] for name in _SOURCES)
    if "checkpoint" not in files:
        if checkpoint[0] in ("upload", "job"):
            content["checkpoint"] = dict([checkpoint])
        elif checkpoint[0] == "random":
            content["model"]["weights"] = "random"
    if "data" not in files and data[0] in ("upload", "dataset"):
        content.setdefault("data", {})[data[0]] = data[1]
    return content, dict(files)


def _form(
    values: Values, sources: Sources, services: Services, errors: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What the template shows."""
    spec = _resolve(values)
    defaults = spec.model_dump(mode="json") if spec else {}
    sampled = not values.get("model.architecture.name")
    if sampled and defaults:
        del defaults["model"]["architecture"]
    whole = describe(_schema(), values, defaults)
    whole = whole.without("model.weights", "data.dataset", *(["training"] if spec and not spec.training else []))
    known = {field.id: field.path for field in whole.fields()} | {"checkpoint": "checkpoint", "data": "data"}
    defenses = {row["name"]: row for row in DEFENSES.catalog()}
    return {
        "values": values,
        "groups": {part.path: part for part in whole.parts},
        "defense": defenses.get(values.get("defense.name", "")),
        "defenses": defenses.values(),
        "passes": _passes(spec),
        "estimate": _estimate(spec, values, sources),
        "sampled": sampled,
        "errors": [{**row, "at": _nearest(str(row["field"]), known.values())} for row in errors],
        **_choices(sources, services),
    }


def _nearest(field: str, known: Any) -> str:
    """The control that an error is shown at: its own, or of a list the list's; "" if there is none."""
    fits = [path for path in known if field == path or field.startswith(f"{path}.") or f"{field}.name" == path]
    return max(fits, key=len, default="")


def _choices(sources: Sources, services: Services) -> dict[str, Any]:
    """What is there already to start from."""
    finished = [u for u in sources.uploads.page(limit=_SHOWN, after=None) if u.finished_at is not None]
    hardened = sources.jobs.page(state=State.SUCCEEDED, defense=None, limit=_SHOWN, after=None)
    datasets = [row for row in catalog.datasets(services)["items"] if row["fetched"]]
    return {"uploads": finished, "hardened": [j for j in hardened if j.spec["training"]], "datasets": datasets}


def _resolve(values: Values) -> JobSpec | None:
    """The spec with its defaults, as far as it can be told; what is wrong is said once it is submitted."""
    named = {key: values[key] for key in ("model.architecture.name", "defense.name") if values.get(key)}
    for known in (values, named, {key: value for key, value in named.items() if key == "defense.name"}):
        content = assemble(describe(_schema(), known, {}).fields(), known)
        content.setdefault("model", {}).setdefault("architecture", _SAMPLE)
        try:
            return JobSpec.model_validate(content)
        except ValidationError:
            continue
    return None


def _passes(spec: JobSpec | None) -> dict[str, int] | None:
    """Forward and backward passes on each training image: of the whole training, and of one on clean images."""
    if spec is None or spec.training is None:
        return None
    return {"all": sum(map(spec.fb_per_example, range(spec.epochs))), "epochs": spec.training.epochs}


def _estimate(spec: JobSpec | None, values: Values, sources: Sources) -> Estimate | None:
    """From a job that ran on the data that is chosen; of a file on the reader's disk nothing is known."""
    kind, _, chosen = values.get("data_from", "").partition(":")
    if spec is None or kind not in ("upload", "dataset"):
        return None
    try:
        data = DataId(dataset=chosen) if kind == "dataset" else DataId(sources.uploads.finished(chosen).sha256)
    except JobsError:
        return None  # what is wrong with it is said when it is submitted
    return estimate(spec, data, sources.jobs)


@cache
def _schema() -> dict[str, Any]:
    return JobSpec.model_json_schema()


@cache
def _names() -> frozenset[str]:
    return frozenset({*paths(_schema()), *_SOURCES})
