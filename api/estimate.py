"""What a job is likely to take, told from one of the tenant's jobs that ran with the same network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from api.shapes import Estimate
from core.report import Report
from core.spec import JobSpec
from jobs.repository import JobRepository
from jobs.states import State
from jobs.tables import Job

_LOOK_BACK = 50  # jobs


class DataId(NamedTuple):
    """Which data a job is about: the SHA-256 of a file, or a dataset's name; neither where it is not said yet."""

    sha256: str | None = None
    dataset: str | None = None


def estimate(spec: JobSpec, data: DataId, jobs: JobRepository) -> Estimate:
    """Passes are counted; seconds and memory are those of a job that ran, in proportion. Null where none tells.

    The nearest job counts, then the newest: same network and devices, then same data, suite, training or none.
    """
    passes = sum(map(spec.fb_per_example, range(spec.epochs))) if spec.training else None
    told: Estimate = {
        "passes_per_image": passes,
        "train_images": spec.training.samples if spec.training else None,
        "seconds": None,
        "peak_memory_bytes": None,
        "from_job": None,
    }
    alike = [job for job in _ended(jobs) if _network(job.spec) == _network(spec.model_dump(mode="json"))]
    if not alike:
        return told
    nearest = max(alike, key=lambda job: _nearness(job, spec, data, jobs))  # the first, so the newest, of equals
    report = Report.model_validate(jobs.report(nearest.id)[1])
    told["peak_memory_bytes"], told["from_job"] = report.cost.peak_memory_bytes, nearest.id
    if _data_of(nearest, jobs) == data:
        told["train_images"] = _train_images(spec, report)
        told["seconds"] = _seconds(spec, report, told["train_images"], passes)
    return told


def _ended(jobs: JobRepository) -> Iterable[Job]:
    return jobs.page(state=State.SUCCEEDED, defense=None, limit=_LOOK_BACK, after=None)


def _network(spec: dict[str, Any]) -> tuple[Any, ...]:
    return spec["model"]["architecture"], spec["devices"]


def _nearness(job: Job, spec: JobSpec, data: DataId, jobs: JobRepository) -> tuple[bool, ...]:
    same_suite = job.spec["evaluation"]["suite"] == spec.evaluation.suite
    return _data_of(job, jobs) == data, same_suite, (job.spec["training"] is None) == (spec.training is None)


def _data_of(job: Job, jobs: JobRepository) -> DataId:
    sha256 = jobs.upload(job.data_upload).sha256 if job.data_upload else None
    return DataId(sha256, job.spec["data"]["dataset"])


def _train_images(spec: JobSpec, report: Report) -> int | None:
    if spec.training is None:
        return None
    there = int(report.inputs["data"]["counts"]["train"])
    there -= min(spec.training.held_out, max(1, there // 10))
    return min(there, spec.training.samples or there)


def _seconds(spec: JobSpec, report: Report, train_images: int | None, passes: int | None) -> float | None:
    """Training by its passes, choosing the epoch by epochs, attacks by images: all at the speed of the other job."""
    phases = report.cost.phases
    if report.suite != spec.evaluation.suite or spec.defense.searches:
        return None
    there = int(report.inputs["data"]["counts"]["test"])
    images = min(spec.evaluation.samples, there) / report.images.count
    seconds = phases["baseline"].seconds * images
    if spec.training is None:
        return seconds
    if report.training is None or train_images is None or passes is None:
        return None
    training = phases["training"]
    seconds += training.seconds / training.fb * passes * train_images
    seconds += phases["validation"].seconds / len(report.training.curves) * spec.epochs
    return seconds + phases["evaluating"].seconds * images
