"""What can end a run. One base; each error carries the code, the blame and the way out."""

from __future__ import annotations

import errno
import os
from typing import ClassVar, Literal

Blame = Literal["user", "system"]
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class RunError(Exception):
    """Base of all errors that end a run with a reason a person can act on.

    ``code`` is stable and machine-readable, ``detail`` says what happened, ``hint`` the way out.
    """

    code: ClassVar[str] = "internal"
    blame: ClassVar[Blame] = "system"

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class CheckpointMismatchError(RunError):
    """The checkpoint's keys or shapes do not fit the architecture."""

    code = "checkpoint_mismatch"
    blame = "user"


class DataMismatchError(RunError):
    """The images or labels do not fit the model: channels, class count, size."""

    code = "data_mismatch"
    blame = "user"


class UnsupportedError(RunError):
    """This attack, defense or architecture cannot do what the spec asks of it."""

    code = "unsupported"
    blame = "user"


class BadLogitsError(RunError):
    """The model returned something that is not one finite logit per class."""

    code = "bad_logits"
    blame = "user"


class BaselineTooLowError(RunError):
    """Clean accuracy of the uploaded checkpoint is near chance."""

    code = "baseline_too_low"
    blame = "user"


class DivergedError(RunError):
    """The training loss became NaN or infinite."""

    code = "diverged"
    blame = "user"


class OutOfMemoryError(RunError):
    """The device's memory did not suffice."""

    code = "out_of_memory"
    blame = "user"


class DiskFullError(RunError):
    """The work folder's disk has no room left."""

    code = "storage_full"


class TooFewDevicesError(RunError):
    """The machine has fewer GPUs than the job asks for."""

    code = "too_few_devices"
    blame = "user"


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it and the state is saved
    """Raised after the state was saved because ``should_stop`` said so."""


class LostRankError(Exception):
    """Another rank of the job died, and this one cannot go on alone."""


def run_error(code: str, detail: str, hint: str) -> RunError:
    """The error with this code, as another rank raised it."""
    kinds = {kind.code: kind for kind in RunError.__subclasses__()}
    return kinds.get(code, RunError)(detail, hint)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on the GPU or on the CPU, where torch has no class for it."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def is_disk_full(error: Exception) -> bool:
    """Whether a file could not be written for want of room; writers of libraries raise errors of their own over it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return True
        if any(os.strerror(number) in str(cause) for number in _NO_ROOM):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
