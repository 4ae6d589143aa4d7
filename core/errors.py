"""What can end a run. One base; each error carries the code, the blame and the way out."""

from __future__ import annotations

from typing import ClassVar, Literal

Blame = Literal["user", "system"]


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


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it and the state is saved
    """Raised after the state was saved because ``should_stop`` said so."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on the GPU or on the CPU, where torch has no class for it."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
