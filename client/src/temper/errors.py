"""What can go wrong, in the server's own words where it spoke.

TemperError
|- NoConnectionError     nobody answered, or the connection broke and stayed broken
|- RefusedError          the server answered, with an error: problem+json, docs/errors.md has every code
|  |- JobFailedError     there is no report: the job failed
|  `- JobCancelledError  there is no report: the job was cancelled
|- NotReadyError         the job has not ended yet
|- DamagedError          a file is not what its digest says
|- ExistsError           another file is there already
`- ModuleError           a module is no chain of layers
"""

from __future__ import annotations

from typing import Any

import httpx

_PASSING = frozenset({408, 425, 429, 502, 503, 504})
_PASSING_CODES = frozenset({"idempotency_in_progress"})


class TemperError(Exception):
    """All errors of this library. ``passing``: the same request may succeed later; ``retry_after``: seconds until."""

    passing = False
    retry_after: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As the commands print it with --json."""
        return {"error": type(self).__name__, "detail": str(self)}


class NoConnectionError(TemperError):
    """No server there, or none that can be reached."""

    def __init__(self, detail: str, *, passing: bool = True) -> None:
        super().__init__(detail)
        self.passing = passing


class RefusedError(TemperError):
    """An answer with an error. ``errors``: the fields at fault; ``failure``: why a job failed."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.status, self.problem, self.retry_after = status, problem, retry_after
        self.errors: list[dict[str, Any]]
        self.code = str(problem.get("code", "http_error"))
        self.detail = str(problem.get("detail", ""))
        self.hint: str | None = problem.get("hint")
        rows = problem.get("errors")
        self.errors = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        self.failure: dict[str, Any] = problem.get("failure", {})
        self.request_id: str | None = problem.get("request_id")
        self.passing = status in _PASSING or self.code in _PASSING_CODES
        super().__init__(f"{self.detail} ({self.hint})" if self.hint else self.detail)

    @classmethod
    def of(cls, response: httpx.Response, retry_after: float | None) -> RefusedError:
        """From an answer that was read."""
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict) or "detail" not in problem:  # of a proxy, or of no Temper at all
            detail = f"{response.url} answered {response.status_code} {response.reason_phrase}, and not as Temper does"
            problem = {"code": "http_error", "detail": detail}
        kind = {"job_failed": JobFailedError, "job_cancelled": JobCancelledError}.get(str(problem.get("code")), cls)
        return kind(response.status_code, problem, retry_after)

    def as_json(self) -> dict[str, Any]:
        """The problem as it came."""
        return {"error": type(self).__name__, **self.problem}


class JobFailedError(RefusedError):
    """A job without a report, because it failed."""


class JobCancelledError(RefusedError):
    """A job without a report, because it was cancelled."""


class NotReadyError(TemperError):
    """Asked for what a job has only at its end."""


class DamagedError(TemperError):
    """Bytes that do not have their digest."""


class ExistsError(TemperError):
    """A download would replace another file."""


class ModuleError(TemperError):
    """A module that cannot be told as layers."""
