"""POST /jobs: from a multipart or JSON body to a stored job."""

from __future__ import annotations

import copy
import errno
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from api.errors import SpecInvalidError
from api.services import Services
from core.spec import JobSpec, merge
from jobs.database import AWAY
from jobs.errors import StorageFullError
from jobs.repository import NewJob, NewUpload, new_id
from jobs.tables import Job
from recipes.catalog import RecipeError, load

FORM_FIELDS = {
    "architecture": ("model", "architecture"),
    "defense": ("defense",),
    "eps": ("threat", "eps"),
    "norm": ("threat", "norm"),
    "epochs": ("training", "epochs"),
}
_FILES = ("checkpoint", "data")
_MAX_SPEC_BYTES = 1 << 20
Reference = dict[str, str]


async def submit(request: Request, services: Services) -> Job:
    """Validate everything, then store the files, then all rows in one transaction.

    Raises: SpecInvalidError naming the field; UploadNotFoundError, JobNotFoundError for references.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=len(_FILES), max_part_size=_MAX_SPEC_BYTES) as form:
            return await run_in_threadpool(_from_form, form, services)
    if kind != "application/json":
        raise HTTPException(415, "send multipart/form-data (curl -F) or application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_SPEC_BYTES:
            raise HTTPException(413, f"a spec has at most {_MAX_SPEC_BYTES} bytes; files go as multipart/form-data")
    return await run_in_threadpool(_from_json, body.decode(errors="replace"), services)


def _from_form(form: FormData, services: Services) -> Job:
    unknown = sorted(set(form) - {"spec", *_FILES, *FORM_FIELDS})
    if unknown:
        allowed = ["spec", *_FILES, *FORM_FIELDS]
        raise SpecInvalidError.field(unknown[0], f"no such form field; allowed: {', '.join(allowed)}", allowed=allowed)
    content = _parse_json(_text(form, "spec"), "spec") if "spec" in form else {}
    for name, path in FORM_FIELDS.items():
        if name in form:
            _override(content, path, _text(form, name))
    files = {name: _file(form, name) for name in _FILES if name in form}
    return _submit(content, files, services)


def _from_json(text: str, services: Services) -> Job:
    return _submit(_parse_json(text, "body"), {}, services)


def _submit(content: dict[str, Any], files: dict[str, UploadFile], services: Services) -> Job:
    references = _pop_references(content)
    start = None
    if "recipe" in content:
        content, start = _from_recipe(content, brings_data="data" in references.keys() | files.keys())
    spec = _validate(content)
    _check_sources(spec, references.keys() | files.keys(), start)
    # what can fail without storing anything comes first
    known = {name: services.repository.upload(r["upload"]).id for name, r in references.items() if "upload" in r}
    new: dict[str, NewUpload] = {}
    try:
        for name, reference in references.items():
            if "job" in reference and name not in files:
                new[name] = _from_job(reference["job"], services)
        for name, file in files.items():
            new[name] = _store(file.filename or name, file.file, services)
        uploads = {**known, **{name: upload.id for name, upload in new.items()}}
        job = services.repository.create(
            NewJob(
                spec=spec.model_dump(mode="json"),
                queue=spec.queue or _queue(spec, services.settings.queue),
                defense=spec.defense.name,
                name=spec.name,
                tags=dict(spec.tags),
                epochs=spec.epochs,
                checkpoint_upload=uploads.get("checkpoint"),
                data_upload=uploads.get("data"),
                max_seconds=60 * spec.max_minutes if spec.max_minutes else None,
            ),
            new.values(),
        )
    except AWAY:
        raise  # the commit may have happened before its answer was lost: files without a row are swept
    except BaseException:
        services.storage.delete([upload.stored.key for upload in new.values()])
        raise
    services.ring(job.queue, job.id)
    return job


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
    if spec.model.weights == "random":
        if "checkpoint" in given:
            raise SpecInvalidError.field("model.weights", "either a checkpoint or random weights, not both")
    elif "checkpoint" not in given:
        way = 'send the file (-F checkpoint=@model.pt), or {"upload": ID} or {"job": ID}'
        if start is not None:
            way += f'; this recipe fine-tunes the result of recipe {start!r}: run that first, and give {{"job": ID}}'
        raise SpecInvalidError.field("checkpoint", way)
    if "data" not in given and spec.data.dataset is None:
        raise SpecInvalidError.field(
            "data", 'send the file (-F data=@data.npz), or {"upload": ID} or {"dataset": NAME} as data'
        )
    if "data" in given and spec.data.dataset is not None:
        raise SpecInvalidError.field("data.dataset", "either a file or a named dataset, not both")


def _text(form: FormData, name: str) -> str:
    value = form[name]
    if not isinstance(value, str):
        raise SpecInvalidError.field(name, "send text, not a file")
    if "\0" in value:
        raise SpecInvalidError.field(name, "it holds the character NUL")
    return value


def _file(form: FormData, name: str) -> UploadFile:
    value = form[name]
    if not isinstance(value, UploadFile):
        raise SpecInvalidError.field(name, f"send a file: -F {name}=@FILE")
    return value


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


def _from_job(job_id: str, services: Services) -> NewUpload:
    """A job's hardened checkpoint, as an upload of its own."""
    job, report = services.repository.report(job_id)
    if report is None or report["output"] is None:
        raise SpecInvalidError.field("checkpoint.job", f"job {job_id} has no hardened checkpoint (it is {job.state})")
    name = f"checkpoint.{report['output']['format']}"
    artifact = services.repository.artifacts(job_id, "output")[name]
    with _room(services) as folder:
        path = Path(folder) / name
        services.storage.fetch(artifact.key, artifact.sha256, path)
        return _put(f"{job_id}.{name}", path, services)


@contextmanager
def _room(services: Services) -> Iterator[str]:
    """A temporary folder where the service keeps its data; what a killed process leaves there is swept."""
    services.settings.work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=services.settings.work_dir, prefix=".upload-") as folder:
            yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise StorageFullError("the service's disk is full", "an operator has to free some space") from error
        raise


def _store(filename: str, file: BinaryIO, services: Services) -> NewUpload:
    with _room(services) as folder:
        path = Path(folder) / "upload"
        with path.open("wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)
        return _put(filename, path, services)


def _put(filename: str, path: Path, services: Services) -> NewUpload:
    upload_id = new_id("up")
    stored = services.storage.put(f"uploads/{upload_id}", path)
    # only the last part: browsers may send paths, and the name is only ever shown
    shown = filename.replace("\\", "/").rpartition("/")[2][:200].encode("utf-8", "replace").decode().replace("\0", "")
    return NewUpload(upload_id, shown, stored)
