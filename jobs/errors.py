"""What can go wrong with jobs. One base; each carries the HTTP status that endpoints answer with."""

from __future__ import annotations

from typing import ClassVar


class JobsError(Exception):
    """Base. ``code`` is stable, ``str()`` is for people, ``hint`` the way out."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class JobNotFoundError(JobsError):
    """No such job."""

    status, code = 404, "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")


class UploadNotFoundError(JobsError):
    """No such upload."""

    status, code = 404, "upload_not_found"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"there is no upload {upload_id!r}")


class ArtifactNotFoundError(JobsError):
    """The job has no such file (yet)."""

    status, code = 404, "artifact_not_found"


class WrongStateError(JobsError):
    """The job's state does not allow this."""

    status, code = 409, "wrong_state"


class LeaseLostError(JobsError):
    """This attempt no longer owns the job: every further write is refused."""

    status, code = 409, "lease_lost"


class StorageError(JobsError):
    """The store does not answer, or refuses."""

    status, code = 503, "storage_unavailable"


class StorageCorruptError(JobsError):
    """A stored file does not have the bytes that were put there."""

    code = "storage_corrupt"


class StorageMissingError(StorageCorruptError):
    """A stored file is gone."""


class StorageFullError(JobsError):
    """No room for a file."""

    status, code = 507, "storage_full"
