"""Every error becomes problem+json (RFC 9457) here, with a stable ``code``, and for bad specs the fields at fault."""

from __future__ import annotations

import logging
import math
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
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api import request_id
from jobs.database import AWAY
from jobs.errors import JobsError

CHECKSUM_MISMATCH = 460  # of the tus protocol, and no registered one
_log = logging.getLogger(__name__)
_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    503: "busy",
}


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
        found = error.errors(include_url=False)
        decides = {("defense",), ("model",), ("model", "architecture")}
        if any(item["loc"][:2] in decides or item["loc"][:1] == ("defense",) for item in found):
            # what they would have filled in is not the sender's to give
            found = [item for item in found if item["type"] != "missing" or item["loc"][:1] != ("training",)]
        return cls([_row(dict(item), data) for item in found])


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """An RFC 9457 answer; docs/errors.md has every code."""
    body = {
        "type": "about:blank",
        "title": "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id.current(),
    }
    body.update({key: value for key, value in more.items() if value})
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def problem_of(error: JobsError) -> JSONResponse:
    """What an error of ours looks like."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="temper"'
    return problem(error.status, error.code, str(error), headers, hint=error.hint)


def translate(error: Exception) -> JSONResponse | None:
    """What is known of an error, as an answer; None for a fault of ours."""
    if isinstance(error, JobsError):
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("%s: %s", error.code, error)
        return problem_of(error)
    if isinstance(error, AWAY):
        _log.error("the database does not answer: %s", type(error).__name__)  # its words hold values of the statement
        hint = "nothing is lost; try again in a moment"
        return problem(503, "database_unavailable", "the database does not answer", {"Retry-After": "5"}, hint=hint)
    if isinstance(error, SpecInvalidError):
        return problem(422, "invalid_spec", str(error), errors=error.errors)
    if isinstance(error, ClientDisconnect):
        return problem(400, "bad_request", "the request ended before its body")
    return None


def install(app: FastAPI) -> None:
    """Register the translations; what none of them knows is answered by api.front."""

    async def known(_request: Request, error: Exception) -> JSONResponse:
        answer = translate(error)
        if answer is None:
            raise error
        return answer

    for kind in (JobsError, *AWAY, SpecInvalidError, ClientDisconnect):
        app.add_exception_handler(kind, known)

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        rows = [{"field": ".".join(map(str, item["loc"][1:])), "message": _sentence(item)} for item in error.errors()]
        return problem(422, "invalid_request", "; ".join(f"{r['field']}: {r['message']}" for r in rows), errors=rows)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        headers, detail = dict(error.headers or {}), error.detail
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {request.scope['path']}"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(request))
            detail = f"this takes {headers['Allow']}"
        return problem(error.status_code, _HTTP_CODES.get(error.status_code, "http_error"), detail, headers)


def _methods(request: Request) -> list[str]:
    """All that a path takes; the framework knows only those of the first route that fits."""
    found = {request.method}
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] != Match.NONE:  # pages are there for browsers only
            found |= route.methods or set()
    return sorted(found - {request.method})


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
