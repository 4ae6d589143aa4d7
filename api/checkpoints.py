"""/jobs/{id}/checkpoint: the hardened weights, resumable and verifiable."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.errors import problem
from api.services import Provided, Services
from jobs.errors import ArtifactNotFoundError
from jobs.states import FINAL
from jobs.tables import Artifact

router = APIRouter(prefix="/jobs", tags=["jobs"])
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


@router.api_route(
    "/{job_id}/checkpoint",
    methods=["GET", "HEAD"],
    summary="The hardened checkpoint",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "The part that `Range` asked for."},
        304: {"description": "`If-None-Match` has its ETag."},
        416: {"description": "`Range` lies outside the file."},
    },
)
def get_checkpoint(
    request: Request,
    job_id: str,
    services: Provided,
    format: Annotated[Literal["safetensors", "pt"] | None, Query()] = None,  # noqa: A002 - its name in the contract
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
    range: Annotated[str | None, Header()] = None,  # noqa: A002 - the header's name
) -> Response:
    """In the format that came in, or in `format`. Of a failed job, the last good epoch, if there was one."""
    artifact = _find(job_id, format, services)
    etag = f'"{artifact.sha256}"'
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Repr-Digest": f"sha-256=:{digest}:"}
    if if_none_match and (
        if_none_match.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    ):
        return Response(status_code=304, headers=headers)
    start, end = 0, artifact.size
    status = 200
    wanted = range if request.method == "GET" and (if_range is None or if_range == etag) else None
    if (bounds := _bounds(wanted or "", artifact.size)) is not None:
        start, end = bounds
        if start >= end:
            return problem(
                416,
                "range_not_satisfiable",
                f"the file has {artifact.size} bytes",
                {"Content-Range": f"bytes */{artifact.size}"},
            )
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["Content-Length"] = str(end - start)
    headers["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    content = services.storage.read(artifact.key, start, end)
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")


def _find(job_id: str, wanted: str | None, services: Services) -> Artifact:
    job, report = services.repository.report(job_id)
    outputs = services.repository.artifacts(job_id, "output")
    if not outputs:
        reason = "it is not done yet" if job.state not in FINAL else f"it {job.state}"
        if job.spec["training"] is None:
            reason = f"defense {job.defense!r} does not train"
        raise ArtifactNotFoundError(f"job {job_id} has no hardened checkpoint: {reason}")
    if wanted is None:
        uploaded = services.repository.upload(job.checkpoint_upload).filename
        native = "safetensors" if uploaded.endswith(".safetensors") else "pt"
        wanted = report["output"]["format"] if report else native
    return outputs[f"checkpoint.{wanted}"]


def _bounds(header: str, size: int) -> tuple[int, int] | None:
    """A byte range as [start, end): "bytes=5-9", "bytes=5-", or "bytes=-9" for the last nine; None if not valid."""
    match = _RANGE.fullmatch(header)
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size
