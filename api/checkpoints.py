"""/jobs/{id}/checkpoint and /jobs/{id}/artifacts: what a job made, resumable and verifiable."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api.caller import READ, Jobs
from api.downloads import RESPONSES, Conditions, send
from api.services import Provided
from api.shapes import ArtifactFile, ArtifactList
from jobs.errors import ArtifactNotFoundError
from jobs.repository import JobRepository
from jobs.states import State
from jobs.tables import Artifact

router = APIRouter(prefix="/jobs", tags=["jobs"])
_SIGNED_SECONDS = 3600.0
_WITHOUT = {State.FAILED: "it failed", State.CANCELLED: "it was cancelled", State.SUCCEEDED: "it made none"}


@router.head("/{job_id}/checkpoint", include_in_schema=False, dependencies=[READ])
@router.get(
    "/{job_id}/checkpoint",
    summary="The hardened checkpoint",
    response_class=Response,
    responses=RESPONSES,
    dependencies=[READ],
)
def get_checkpoint(
    job_id: str,
    jobs: Jobs,
    services: Provided,
    conditions: Annotated[Conditions, Depends()],
    file_format: Annotated[Literal["safetensors", "pt"] | None, Query(alias="format")] = None,
) -> Response:
    """In the format that came in, or in `format`. Of a failed job, the last good epoch, if there was one."""
    return send(_find_checkpoint(job_id, file_format, jobs), conditions, services)


@router.get("/{job_id}/artifacts", summary="What a job made", dependencies=[READ])
def list_artifacts(job_id: str, jobs: Jobs, services: Provided) -> ArtifactList:
    """Every file with its size and SHA-256; empty until the job has ended.

    `signed_url`: where the store itself gives it out, for an hour, to anybody who has this address; null if it cannot.
    """
    jobs.job(job_id)
    outputs = jobs.artifacts(job_id, "output")
    items: list[ArtifactFile] = [
        {
            "name": name,
            "size": item.size,
            "sha256": item.sha256,
            "href": f"/jobs/{job_id}/artifacts/{name}",
            "signed_url": services.storage.signed_url(item.key, _SIGNED_SECONDS),
        }
        for name, item in sorted(outputs.items())
    ]
    return {"items": items}


@router.head("/{job_id}/artifacts/{name}", include_in_schema=False, dependencies=[READ])
@router.get(
    "/{job_id}/artifacts/{name}",
    summary="One file that a job made",
    response_class=Response,
    responses=RESPONSES,
    dependencies=[READ],
)
def get_artifact(
    job_id: str, name: str, jobs: Jobs, services: Provided, conditions: Annotated[Conditions, Depends()]
) -> Response:
    """Per-image results as `images.parquet`, the checkpoint in both formats."""
    jobs.job(job_id)
    outputs = jobs.artifacts(job_id, "output")
    if name not in outputs:
        known = ", ".join(sorted(outputs)) or "none yet"
        raise ArtifactNotFoundError(f"job {job_id} has no artifact {name!r}; it has: {known}")
    return send(outputs[name], conditions, services)


def _find_checkpoint(job_id: str, wanted: str | None, jobs: JobRepository) -> Artifact:
    job, report = jobs.report(job_id)
    outputs = jobs.artifacts(job_id, "output")
    if not any(name.startswith("checkpoint.") for name in outputs):
        reason = _WITHOUT.get(State(job.state), "it is not done yet")
        if job.spec["training"] is None:
            reason = f"defense {job.defense!r} does not train"
        raise ArtifactNotFoundError(f"job {job_id} has no hardened checkpoint: {reason}")
    if wanted is None:
        uploaded = jobs.upload(job.checkpoint_upload).filename if job.checkpoint_upload else ""
        native = "safetensors" if uploaded.endswith(".safetensors") else "pt"
        wanted = report["output"]["format"] if report else native
    return outputs[f"checkpoint.{wanted}"]
