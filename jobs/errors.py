"""What can go wrong with jobs. One base; each carries the HTTP status that endpoints answer with."""

from __future__ import annotations

from typing import ClassVar


class JobsError(Exception):
    """Base. ``code`` is stable, ``str()`` is for people, ``hint`` the way out."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after: float | None = None
    """Seconds after which it is worth another try."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class JobNotFoundError(JobsError):
    """No such job."""

    status, code = 404, "job_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such job", "GET /jobs lists those that there are")


class UploadNotFoundError(JobsError):
    """No such upload."""

    status, code = 404, "upload_not_found"

    def __init__(self, field: str = "") -> None:
        """``field`` of the request that names it."""
        super().__init__(f"{field}: there is no such upload" if field else "there is no such upload")


class UploadOffsetError(JobsError):
    """The bytes do not go on where those that are there end."""

    status, code = 409, "upload_offset"


class UploadLockedError(JobsError):
    """Another request was faster: what this one brought is not stored."""

    status, code = 423, "upload_locked"


class UploadUnfinishedError(JobsError):
    """Not all of its bytes are there."""

    status, code = 409, "upload_unfinished"


class UploadInUseError(JobsError):
    """A job that has not ended needs it."""

    status, code = 409, "upload_in_use"


class UploadLengthError(JobsError):
    """More bytes than were announced, or in too many pieces."""

    status, code = 413, "upload_length"


class ChecksumError(JobsError):
    """The bytes that came are not those that were sent: they are forgotten."""

    status, code = 460, "checksum_mismatch"


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


class IrregularFileError(JobsError):
    """What is to be stored is a link, a folder or a pipe. Never an answer: only workers store files by name."""


class StorageFullError(JobsError):
    """No room for a file."""

    status, code = 507, "storage_full"


# --- keys and tenants


class KeyUnknownError(JobsError):
    """No such key; for the operator who names one."""

    status, code = 404, "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id!r}", "temperd keys list")


class SigningKeyUnknownError(JobsError):
    """No certificate was signed with such a key; for the operator who revokes one."""

    status, code = 404, "signing_key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no signing key {key_id!r}", "temperd signing-keys list")


class SigningKeyError(JobsError):
    """The service's own signing key cannot be used; for the operator who starts it."""

    status, code = 500, "signing_key_unusable"


class TenantUnknownError(JobsError):
    """No such tenant; for the operator who names one."""

    status, code = 404, "tenant_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no tenant {name!r}", "temperd tenants list")


class TooManyQueuedJobsError(JobsError):
    """As many jobs of the tenant wait as may."""

    status, code = 429, "too_many_queued_jobs"
    retry_after = 60.0


class StorageQuotaError(JobsError):
    """The tenant's files take as much room as they may."""

    status, code = 403, "storage_quota_exceeded"


class UploadTooLargeError(JobsError):
    """One file, or one request, is larger than the tenant may send."""

    status, code = 413, "upload_too_large"

    def __init__(self, largest: int) -> None:
        super().__init__(f"an upload has at most {largest} bytes", "an operator can allow more: temperd tenants set")


# --- Idempotency-Key


class IdempotencyInProgressError(JobsError):
    """The first request with this key is still being worked at."""

    status, code = 409, "idempotency_in_progress"

    def __init__(self, seconds: float) -> None:
        super().__init__("a request with this Idempotency-Key is still being worked at", "send it again in a moment")
        self.retry_after = min(max(1.0, seconds), 5.0)


class IdempotencyKeyReusedError(JobsError):
    """An earlier request with this key had another body."""

    status, code = 422, "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used for another request",
            "take a new key for each job, and the same to repeat it",
        )
