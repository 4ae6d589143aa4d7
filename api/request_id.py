"""The id of a request: in its answer, in what is logged meanwhile, and in a problem's body."""

from __future__ import annotations

import re
import secrets

from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

HEADER = "X-Request-Id"
_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME = "request_id"


def begin(given: str | None) -> str:
    """Take the client's, if it is short and safe to log, or make one."""
    request_id = given if given and _SAFE.fullmatch(given) else f"req_{secrets.token_hex(10)}"
    clear_contextvars()
    bind_contextvars(**{_NAME: request_id})
    return request_id


def current() -> str | None:
    """Of the request that is being answered."""
    found: str | None = get_contextvars().get(_NAME)
    return found
