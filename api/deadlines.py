"""The least pace of a request's body: who sends more slowly gets 408, and holds no place here."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem


class SlowSenderError(HTTPException):
    """The body came too slowly."""

    def __init__(self, detail: str) -> None:
        super().__init__(408, detail, {"Connection": "close"})


class LeastPace:
    """Middleware: ``rate`` bytes a second, over each ``window`` seconds of waiting for the client.

    Only the time in which somebody here waits for bytes counts: a slow store is nobody's fault at the other end.
    """

    def __init__(self, app: ASGIApp, rate: float, window: float) -> None:
        self._app, self._rate, self._window = app, rate, window

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; 408 where the body comes too slowly."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, _Paced(receive, self._rate, self._window).receive, watched)
        except SlowSenderError as error:  # met outside the routes, where nobody else translates it
            if started:
                raise
            await problem(408, "request_timeout", error.detail, {"Connection": "close"})(scope, receive, send)


class _Paced:
    """One request's body."""

    def __init__(self, receive: Receive, rate: float, window: float) -> None:
        self._receive, self._rate, self._window = receive, rate, window
        self._ended, self._waited, self._came = False, 0.0, 0

    async def receive(self) -> Message:
        """ASGI's. Raises: SlowSenderError."""
        if self._ended:
            return await self._receive()  # a disconnection may be waited for as long as anybody likes
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._window - self._waited):
                    message = await self._receive()
            except TimeoutError:
                self._end_window()
                continue
            self._waited += asyncio.get_running_loop().time() - begun
            self._came += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
            if self._waited >= self._window and not self._ended:
                self._end_window()
            return message

    def _end_window(self) -> None:
        if self._came < self._rate * self._window:
            detail = (
                f"{self._came} bytes in {self._window:g} s: less than {self._rate:g} bytes a second are not waited for"
            )
            raise SlowSenderError(detail)
        self._waited, self._came = 0.0, 0
