"""Every error becomes problem+json (RFC 9457) here, with a stable ``code``, and for bad specs the fields at fault."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from itertools import zip_longest
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from jobs.database import AWAY
from jobs.errors import JobsError

_log = logging.getLogger(__name__)


class SpecInvalidError(Exception):
    """The request does not describe a job; ``errors`` has one row a field."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(f"{error['field']}: {error['message']}" for error in errors))
        self.errors = errors

    @classmethod
    def field(cls, field: str, message: str, **more: Any) -> SpecInvalidError:
        """A single field at fault."""
        return cls([{"field": field, "message": message, **more}])

    @classmethod
    def from_pydantic(cls, error: ValidationError, data: Any) -> SpecInvalidError:
        """Rows from pydantic's errors; ``data`` is what was validated."""
        return cls([_row(dict(item), data) for item in error.errors(include_url=False)])


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """An RFC 9457 answer."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    body.update({key: value for key, value in more.items() if value})
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Register the translations."""

    @app.exception_handler(JobsError)
    async def _(_request: Request, error: JobsError) -> JSONResponse:
        return problem(error.status, error.code, str(error), hint=error.hint)

    for away in AWAY:

        @app.exception_handler(away)
        async def _(_request: Request, error: Exception) -> JSONResponse:
            _log.error("the database does not answer: %s", error)
            hint = "nothing is lost; try again in a moment"
            return problem(503, "database_unavailable", "the database does not answer", {"Retry-After": "5"}, hint=hint)

    @app.exception_handler(SpecInvalidError)
    async def _(_request: Request, error: SpecInvalidError) -> JSONResponse:
        return problem(422, "invalid_spec", str(error), errors=error.errors)

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        rows = [{"field": ".".join(map(str, item["loc"][1:])), "message": _sentence(item)} for item in error.errors()]
        return problem(422, "invalid_request", "; ".join(f"{r['field']}: {r['message']}" for r in rows), errors=rows)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        headers = dict(error.headers) if error.headers else None
        detail = error.detail if error.status_code != 404 else f"there is nothing at {request.scope['path']}"
        return problem(error.status_code, code, detail, headers)

    @app.exception_handler(Exception)
    async def _(_request: Request, error: Exception) -> JSONResponse:
        _log.error("unhandled error", exc_info=error)
        return problem(500, "internal", "an unexpected fault of the service; its log has the details")


def _row(item: dict[str, Any], data: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"field": field_path(item["loc"], data), "message": _sentence(item)}
    context = item.get("ctx", {})
    if item["type"] == "union_tag_invalid":
        row["allowed"] = re.findall(r"'([^']*)'", context["expected_tags"])
        row["message"] = f"{context['tag']!r} is not known; allowed: {', '.join(row['allowed'])}"
    elif item["type"] == "literal_error":
        row["allowed"] = re.findall(r"'([^']*)'", context["expected"])
    return row


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such field"
    if item["type"] == "union_tag_not_found":
        return 'give a name, or an object with "name"'
    return str(item["msg"]).removeprefix("Value error, ")


def field_path(location: Sequence[int | str], data: Any) -> str:
    """Dotted path as the user wrote it: without the tags that pydantic adds for the chosen kind of a union."""
    parts = []
    current = data
    for part, following in zip_longest(location, location[1:]):
        if isinstance(current, dict):
            # where the user gave no name, the tag is one of its default
            if part not in current and (part in (current.get("name"), current.get("kind")) or following in current):
                continue
            current = current.get(part)
        elif isinstance(current, list | tuple) and isinstance(part, int) and part < len(current):
            current = current[part]
        elif current == part:
            continue  # a bare name stood for the whole object
        else:
            current = None
        parts.append(str(part))
    return ".".join(parts) or "spec"
