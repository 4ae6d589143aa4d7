"""The one way to listen: uvicorn, with an end for clients that take for ever.

uvicorn waits without limit for the head of a request, and for the rest of a body whose answer was sent already: that is
ended here, below ASGI. The pace of a body that is being read is measured above it, by api.deadlines.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobs.settings import Settings


def serve(app: FastAPI, host: str, port: int, settings: Settings, **options: Any) -> None:
    """Listen until SIGINT or SIGTERM; ``options`` are uvicorn's."""
    with _listen(host, port) as listening:
        address = f"[{host}]" if ":" in host else host
        # the one line that scripts wait for; the port may have been chosen by the system
        print(f"Temper listens on http://{address}:{listening.getsockname()[1]}", flush=True)  # noqa: T201
        # uvicorn stops gracefully on these and then raises them again: with this, the exit status is 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        uvicorn.Server(uvicorn.Config(app, http=protocol(settings), server_header=False, **options)).run(
            sockets=[listening]
        )


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # asyncio sets this only on sockets made with an explicit protocol; without it each answer waits 40 ms
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def protocol(settings: Settings) -> type[H11Protocol]:
    """uvicorn's protocol with ``settings.head_seconds`` for every head, and for what comes after an early answer."""
    return type("Protocol", (_Deadlines,), {"seconds": settings.head_seconds})


class _Deadlines(H11Protocol):
    """``_waits_for`` is what the connection waits for from its client: "idle", "head", "rest" (of a body), or "".

    One timer, armed anew only when that changes: a byte now and then buys no time.
    """

    seconds: float
    _waits_for = ""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch("head")  # nobody connects to say nothing

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch("")

    def _watch(self, waits_for: str | None = None) -> None:
        waits_for = self._what() if waits_for is None else waits_for
        if waits_for == self._waits_for:
            return
        self._waits_for = waits_for
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self.seconds, self._too_late) if waits_for else None

    def _what(self) -> str:
        if self.transport.is_closing():
            return ""
        if self.conn.their_state is h11.IDLE:
            return "head" if self.cycle is None or self.conn.trailing_data[0] else "idle"
        answered = self.cycle is not None and self.cycle.response_complete
        return "rest" if answered and self.conn.their_state is h11.SEND_BODY else ""

    def _too_late(self) -> None:
        if self._waits_for == "head" and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._say_so()
        self.transport.close()

    def _say_so(self) -> None:
        detail = f"the head of the request took more than {self.seconds:g} s"
        body = {"type": "about:blank", "title": "Request Timeout", "status": 408, "code": "request_timeout"}
        content = json.dumps({**body, "detail": detail}).encode()
        headers = [
            ("content-type", "application/problem+json"),
            ("content-length", str(len(content))),
            ("connection", "close"),
        ]
        events: tuple[h11.Event, ...] = (
            h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
