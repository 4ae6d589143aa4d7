"""Paths and queries with the character NUL are refused: no name here has it, and Postgres stores it nowhere."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem


class NoNul:
    """Middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 400."""
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            await problem(400, "bad_request", "the address holds the character NUL")(scope, receive, send)
            return
        await self._app(scope, receive, send)
