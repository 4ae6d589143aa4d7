"""What the exit status of a command says."""

from __future__ import annotations

from enum import IntEnum

from temper.errors import (
    DamagedError,
    JobCancelledError,
    JobFailedError,
    NoConnectionError,
    NotReadyError,
    RefusedError,
    TemperError,
)


class Exit(IntEnum):
    """Statuses; 2 is click's, and 130 what shells say of Ctrl-C."""

    DONE = 0
    JOB_FAILED = 1
    USAGE = 2
    JOB_CANCELLED = 3
    REFUSED = 4
    NO_CONNECTION = 5
    NOT_ROBUST = 6
    DAMAGED = 7
    NOT_READY = 8
    INTERRUPTED = 130


HELP = """\
Exit status

0  done; where a job was waited for, it succeeded
1  the job failed
2  the command is wrong, or a file cannot be read or would be replaced
3  the job was cancelled
4  the server refused
5  no connection
6  the verdict is not "robust" (with --require-robust)
7  a file is not what it was: its digest, or its certificate, does not fit
8  there is no report yet
130  interrupted; the job goes on
"""

OF_STATE = {"succeeded": Exit.DONE, "failed": Exit.JOB_FAILED, "cancelled": Exit.JOB_CANCELLED}

_OF_ERROR: dict[type[Exception], Exit] = {
    JobFailedError: Exit.JOB_FAILED,
    JobCancelledError: Exit.JOB_CANCELLED,
    RefusedError: Exit.REFUSED,
    NoConnectionError: Exit.NO_CONNECTION,
    DamagedError: Exit.DAMAGED,
    NotReadyError: Exit.NOT_READY,
}


def of_error(error: TemperError | OSError) -> Exit:
    """The status for an error; what stands at the user's end is a wrong use."""
    return next((status for kind, status in _OF_ERROR.items() if isinstance(error, kind)), Exit.USAGE)
