"""The outermost layer: a request id, the headers that every answer has, and an answer whatever fails within."""

from __future__ import annotations

import logging
from types import TracebackType

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import request_id
from api.errors import problem, translate

_log = logging.getLogger(__name__)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


class Front:
    """Middleware. An answer that sets one of HEADERS itself keeps its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        this = request_id.begin(Headers(scope=scope).get(request_id.HEADER))
        begun = False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers[request_id.HEADER] = this
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception as error:  # noqa: BLE001 - the boundary of the service
            answer = translate(error)
            if answer is None:
                # neither its words nor its frames' paths: they may hold what no log should
                _log.error("unhandled: %s", where(error))
                answer = problem(500, "internal", "an unexpected fault of the service; its log has the details")
            if not begun:  # else the connection is cut: the client sees that the answer is not whole
                await answer(scope, receive, dressed)


def where(error: BaseException) -> list[str]:
    """An error's kind, and the functions and lines that it came through, the innermost last; before it, its cause's."""
    cause = error.__cause__ or error.__context__
    before = where(cause) if cause is not None else []
    return [*before, type(error).__name__, *_frames(error.__traceback__)]


def _frames(traceback: TracebackType | None) -> list[str]:
    found = []
    while traceback is not None:
        frame = traceback.tb_frame
        found.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return found
