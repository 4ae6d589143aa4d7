"""What happens in a job, live: server-sent events, gone on with after a break from the last one that was seen."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from temper.errors import NoConnectionError, TemperError
from temper.http import Http, path

FINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States that a job does not leave."""

_READ_SECONDS = 60.0  # the server sends something every 15 s


@dataclass(frozen=True)
class Event:
    """``type``: state, phase, progress, preview, result, epoch, failure, ...; ``data`` depends on it.

    ``id`` and ``at`` are null for progress, which is not kept.
    """

    type: str
    data: dict[str, Any]
    id: int | None = None
    at: str | None = None


async def follow(http: Http, job_id: str) -> AsyncIterator[Event]:
    """All events from the job's beginning until its end. Raises: NoConnectionError, RefusedError."""
    seen: int | None = None
    patience = http.patience()
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen)} if seen else {})
        address = path("jobs", job_id, "events")
        try:
            async with (
                http.stream("GET", address, headers=headers, timeout=_READ_SECONDS) as response,
                aclosing(parse(http.wire.lines(response))) as events,
            ):
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise http.stranger(response)
                async for event in events:
                    patience.renew()
                    seen = event.id or seen
                    yield event
            if (await http.ask("GET", path("jobs", job_id), "state"))["state"] in FINAL:
                return
            await patience(NoConnectionError("the event stream ended before the job"))
        except TemperError as error:
            await patience(error)


async def parse(lines: AsyncIterator[str]) -> AsyncGenerator[Event, None]:
    """Events from the lines of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    kind, data = "message", ""
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data += value
        elif not line:
            if data:
                yield _event(kind, json.loads(data))
            kind, data = "message", ""


def _event(kind: str, content: dict[str, Any]) -> Event:
    if kind == "progress":
        return Event(kind, content)
    return Event(content["type"], content["data"], content["id"], content["at"])
