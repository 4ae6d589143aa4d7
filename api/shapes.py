"""The shapes of answers, as OpenAPI shows them; ``api.views`` fills them in."""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict


class Failure(TypedDict):
    """Why a job failed: a stable code of docs/errors.md, whose fault it is, and the way out."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    code: str
    blame: str
    detail: str
    hint: NotRequired[str | None]


class Progress(TypedDict):
    """How far it is; the other numbers depend on the phase."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    epoch: NotRequired[int]
    epochs: NotRequired[int]
    fraction: NotRequired[float]
    eta_seconds: NotRequired[float | None]


class Links(TypedDict):
    """Where the rest of a job is."""

    self: str
    events: str
    logs: str
    report: str
    checkpoint: str
    artifacts: str
    cancel: str
    pause: str


class Share(TypedDict):
    """How many of the test images are classified correctly, with a 95% interval of the share."""

    accuracy: float
    correct: int
    total: int
    ci95: tuple[float, float]


class Accuracies(TypedDict):
    """On images as they are, and under every attack of the suite."""

    clean: Share
    robust: Share


class Outcome(TypedDict):
    """The head of a report. `after` is null where nothing was trained."""

    verdict: str
    before: Accuracies
    after: Accuracies | None


class JobSummary(TypedDict):
    """A job as listed."""

    id: str
    name: str | None
    tags: dict[str, str]
    defense: str
    queue: str
    state: str
    phase: str | None
    attempt: int
    progress: Progress
    cancel_requested: bool
    pause_requested: bool
    failure: Failure | None
    outcome: Outcome | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    links: Links


class UploadReference(TypedDict):
    """A file that a user sent."""

    upload: str


class DataSource(TypedDict):
    """A file, or a dataset by name."""

    upload: NotRequired[str]
    dataset: NotRequired[str | None]


class JobDetail(JobSummary):
    """A job on its own: with what it was asked to do."""

    queue_position: int | None
    checkpoint: UploadReference | None
    data: DataSource
    spec: dict[str, Any]


class Estimate(TypedDict):
    """What a job is likely to take; null where no job of the tenant tells.

    ``passes_per_image``: forward and backward passes on each training image, all epochs together. ``seconds`` and
    ``peak_memory_bytes`` are in proportion to those of job ``from_job``, which ran the same network; of seconds only if
    it had the same data and suite.
    """

    passes_per_image: int | None
    train_images: int | None
    seconds: float | None
    peak_memory_bytes: int | None
    from_job: str | None


class Preview(TypedDict):
    """What a job would be: its spec with every default, and what it is likely to take."""

    spec: dict[str, Any]
    estimate: Estimate


class JobPage(TypedDict):
    """``next`` is the cursor of the page after, or null."""

    items: list[JobSummary]
    next: str | None


class Event(TypedDict):
    """Something that happened in a job."""

    id: int
    type: str
    at: str | None
    data: dict[str, Any]


class EventPage(TypedDict):
    """``next`` is the id to go on from, or null."""

    items: list[Event]
    next: int | None


class ArtifactFile(TypedDict):
    """A file that a job made."""

    name: str
    size: int
    sha256: str
    href: str
    signed_url: str | None


class ArtifactList(TypedDict):
    """All of them."""

    items: list[ArtifactFile]


class SigningKey(TypedDict):
    """A public key, PEM; ``revoked_at``: what it signed is not believed any more."""

    id: str
    algorithm: str
    public_key: str
    created_at: str | None
    revoked_at: str | None


class SigningKeyList(TypedDict):
    """All that ever signed."""

    items: list[SigningKey]


class UploadLinks(TypedDict):
    """Where an upload is."""

    self: str


class Upload(TypedDict):
    """A file that is being sent, or is there: ``state`` is "receiving" or "finished"."""

    id: str
    filename: str
    purpose: str | None
    state: str
    size: int | None
    received: int
    sha256: str | None
    created_at: str | None
    finished_at: str | None
    expires_at: str | None
    links: UploadLinks


class UploadPage(TypedDict):
    """``next`` is the cursor of the page after, or null."""

    items: list[Upload]
    next: str | None


class Deleted(TypedDict):
    """What a deletion freed."""

    id: str
    freed_bytes: int


class Ready(TypedDict):
    """Each check by name: "ok", or what is wrong."""

    ready: bool
    checks: dict[str, str]


class Session(TypedDict):
    """What a browser may do now; an open service needs no session, and gives all scopes and no cookie."""

    scopes: list[str]
    expires_in: float | None


class FieldError(TypedDict):
    """A field at fault, as the user wrote it."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    field: str
    message: str
    allowed: NotRequired[list[str]]


class Problem(TypedDict):
    """An RFC 9457 problem; docs/errors.md has every code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None
    hint: NotRequired[str]
    errors: NotRequired[list[FieldError]]
    failure: NotRequired[Failure]
