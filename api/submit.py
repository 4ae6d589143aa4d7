"""POST /jobs: from a multipart or JSON body to a stored job."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api import views
from api.errors import SpecInvalidError
from api.estimate import DataId, estimate
from api.job_form import MAX_FIELD_BYTES, discard, discarding, receive
from api.receive import body
from api.repeat import fingerprint
from api.services import Services
from api.shapes import Preview
from core.spec import JobSpec, merge
from jobs.errors import StorageCorruptError, UploadNotFoundError
from jobs.idempotency import Repeatable
from jobs.intake import take_in
from jobs.repository import JobRepository, NewJob, Once
from jobs.tables import Job, Upload
from jobs.uploads import NewUpload, UploadRepository
from recipes.catalog import RecipeError, load

FORM_FIELDS = {
    "architecture": ("model", "architecture"),
    "defense": ("defense",),
    "eps": ("threat", "eps"),
    "norm": ("threat", "norm"),
    "epochs": ("training", "epochs"),
    "expires_after": ("expires_after",),
}
Reference = dict[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Submitted:
    """A job that was made, and its answer; ``replayed``: by an earlier request with the same Idempotency-Key."""

    job_id: str
    answer: Mapping[str, object]
    replayed: bool = False


@dataclass(frozen=True)
class Sources:
    """What a tenant has that a job can start from."""

    jobs: JobRepository
    uploads: UploadRepository


async def submit(
    request: Request, handle: Callable[[dict[str, Any], dict[str, Upload]], T], sources: Sources, services: Services
) -> T:
    """What ``handle`` makes of the body and its files: what was stored for a job that is refused is removed again.

    Raises: SpecInvalidError naming the field; UploadNotFoundError, JobNotFoundError for references.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with receive(request, sources.uploads, services, (*FORM_FIELDS, "spec")) as (fields, files):
            return await run_in_threadpool(lambda: handle(_from_form(fields), files))
    if kind != "application/json":
        raise HTTPException(415, "send multipart/form-data (curl -F) or application/json")
    text = b""
    detail = f"a spec has at most {MAX_FIELD_BYTES} bytes; files go as multipart/form-data, or to /uploads"
    async for chunk in body(request, MAX_FIELD_BYTES, HTTPException(413, detail)):
        text += chunk
    content = _parse_json(text.decode(errors="replace"), "body")
    return await run_in_threadpool(handle, content, {})


def _from_form(fields: dict[str, str]) -> dict[str, Any]:
    content = _parse_json(fields["spec"], "spec") if "spec" in fields else {}
    for name, path in FORM_FIELDS.items():
        if name in fields:
            _override(content, path, fields[name])
    return content


def preview(content: dict[str, Any], files: dict[str, Upload], sources: Sources, services: Services) -> Preview:
    """What a job would be, of which nothing is kept; files may still be missing.

    Raises: as ``submit``.
    """
    references = _pop_references(content)
    if "recipe" in content:
        content, _ = _from_recipe(content, brings_data="data" in references.keys() | files.keys())
    spec = _validate(content)
    used = {name: _upload(name, r["upload"], sources) for name, r in references.items() if "upload" in r} | files
    data = DataId(used["data"].sha256 if "data" in used else None, spec.data.dataset)
    told: Preview = {"spec": spec.model_dump(mode="json"), "estimate": estimate(spec, data, sources.jobs)}
    discard(files.values(), sources.uploads, services)
    return told


def create(
    content: dict[str, Any],
    files: dict[str, Upload],
    once: Repeatable | None,
    sources: Sources,
    services: Services,
) -> Submitted:
    """A queued job from what a request asks for, and the files that came with it.

    Raises: as ``submit``.
    """
    mark = ""
    if once is not None:  # before anything is looked up, which may have been deleted since
        mark = fingerprint(content, {name: str(upload.sha256) for name, upload in files.items()})
        if (earlier := once.replay(mark)) is not None:
            discard(files.values(), sources.uploads, services)
            return Submitted(earlier["id"], earlier, replayed=True)
    references = _pop_references(content)
    start = None
    if "recipe" in content:
        content, start = _from_recipe(content, brings_data="data" in references.keys() | files.keys())
    spec = _validate(content)
    _check_sources(spec, references.keys() | files.keys(), start)
    told: dict[str, Any] = {}  # to this request and to each repetition, word for word

    def answer(job: Job, position: int) -> dict[str, Any]:
        told.update(views.job_detail(job, position))
        return told

    used = {name: _upload(name, r["upload"], sources) for name, r in references.items() if "upload" in r} | files
    copies = {
        name: _from_job(reference["job"], sources, services)
        for name, reference in references.items()
        if name not in used
    }
    ids = {name: upload.id for name, upload in (used | copies).items()}
    new = NewJob(
        spec=spec.model_dump(mode="json"),
        queue=spec.queue or _queue(spec, services.settings.queue),
        defense=spec.defense.name,
        name=spec.name,
        tags=dict(spec.tags),
        epochs=spec.epochs,
        checkpoint_upload=ids.get("checkpoint"),
        data_upload=ids.get("data"),
        max_seconds=60 * spec.max_minutes if spec.max_minutes else None,
        keep_seconds=spec.expires_after,
    )
    with discarding(copies.values(), sources.uploads, services):
        job = sources.jobs.create(new, Once(once, mark, answer) if once else None)
    services.ring(job.queue, job.id)
    return Submitted(job.id, told or views.job_detail(job, sources.jobs.queue_position(job)))


def _upload(field: str, upload_id: str, sources: Sources) -> Upload:
    try:
        return sources.uploads.finished(upload_id)
    except UploadNotFoundError as error:
        raise UploadNotFoundError(f"{field}.upload") from error


def _queue(spec: JobSpec, usual: str) -> str:
    """Several GPUs are not on every machine."""
    return "gpu-large" if usual == "gpu" and spec.devices > 1 else usual


def _from_recipe(content: dict[str, Any], *, brings_data: bool) -> tuple[dict[str, Any], str | None]:
    """The recipe's spec with the body laid over it, and the recipe that it starts from, if any."""
    name = content.pop("recipe")
    if not isinstance(name, str):
        raise SpecInvalidError.field("recipe", "a recipe's name is a string")
    try:
        recipe = load(name)
    except RecipeError as error:
        raise SpecInvalidError.field("recipe", str(error)) from error
    resolved = merge(copy.deepcopy(recipe.spec), content)
    if brings_data and isinstance(resolved.get("data"), dict):
        resolved["data"] = {key: value for key, value in resolved["data"].items() if key != "dataset"}
    return {"name": name, **resolved}, recipe.start


def _check_sources(spec: JobSpec, given: set[str], start: str | None = None) -> None:
    """``start``: the recipe whose result this one fine-tunes."""
    missing = {}
    if spec.model.weights == "random":
        if "checkpoint" in given:
            raise SpecInvalidError.field("model.weights", "either a checkpoint or random weights, not both")
    elif "checkpoint" not in given:
        missing["checkpoint"] = 'send the file (-F checkpoint=@model.pt), or {"upload": ID} or {"job": ID}'
        if start is not None:
            missing["checkpoint"] += (
                f'; this recipe fine-tunes the result of recipe {start!r}: run that first, and give {{"job": ID}}'
            )
    if "data" not in given and spec.data.dataset is None:
        missing["data"] = 'send the file (-F data=@data.npz), or {"upload": ID} or {"dataset": NAME} as data'
    if missing:
        raise SpecInvalidError([{"field": field, "message": way} for field, way in missing.items()])
    if "data" in given and spec.data.dataset is not None:
        raise SpecInvalidError.field("data.dataset", "either a file or a named dataset, not both")


def _parse_json(text: str, field: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
        text = json.dumps(content, ensure_ascii=False)
        text.encode()  # lone surrogates could be stored nowhere
        if r"\u0000" in text:
            raise ValueError("it holds the character NUL")
    except (ValueError, RecursionError) as error:
        raise SpecInvalidError.field(field, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SpecInvalidError.field(field, "not a JSON object")
    return content


def _override(content: dict[str, Any], path: tuple[str, ...], value: str) -> None:
    """Set a form field's value in the spec."""
    for part in path[:-1]:
        if not isinstance(content.setdefault(part, {}), dict):
            raise SpecInvalidError.field(part, "not a JSON object")
        content = content[part]
    content[path[-1]] = value


def _validate(content: dict[str, Any]) -> JobSpec:
    try:
        return JobSpec.model_validate(content)
    except ValidationError as error:
        raise SpecInvalidError.from_pydantic(error, content) from error


def _pop_references(content: dict[str, Any]) -> dict[str, Reference]:
    """Take ``checkpoint`` and ``data.upload`` out of the body; the rest is the spec."""
    references = {}
    if "checkpoint" in content:
        references["checkpoint"] = _reference("checkpoint", content.pop("checkpoint"), ("upload", "job"))
    data = content.get("data")
    if isinstance(data, dict) and "upload" in data:
        content["data"] = {key: value for key, value in data.items() if key != "upload"}
        references["data"] = _reference("data", {"upload": data["upload"]}, ("upload",))
    return references


def _reference(field: str, value: Any, kinds: tuple[str, ...]) -> Reference:
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= set(kinds):
        forms = " or ".join(f'{{"{kind}": ID}}' for kind in kinds)
        raise SpecInvalidError.field(field, f"give {forms}")
    if not isinstance(next(iter(value.values())), str):
        raise SpecInvalidError.field(field, "an id is a string")
    return value


def _from_job(job_id: str, sources: Sources, services: Services) -> Upload:
    """A job's hardened checkpoint, as an upload of its own."""
    job, report = sources.jobs.report(job_id)
    if report is None or report["output"] is None:
        raise SpecInvalidError.field("checkpoint.job", f"job {job_id} has no hardened checkpoint (it is {job.state})")
    name = f"checkpoint.{report['output']['format']}"
    artifact = sources.jobs.artifacts(job_id, "output")[name]
    new = NewUpload(f"{job_id}.{name}", size=None, standalone=False)
    upload = take_in(new, services.storage.read(artifact.key), sources.uploads, services.storage)
    with discarding([upload], sources.uploads, services):
        if upload.sha256 != artifact.sha256:
            raise StorageCorruptError(f"stored file {artifact.key} was damaged")
    return upload
