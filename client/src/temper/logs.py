"""A job's log, as it is and as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from temper.errors import NoConnectionError, TemperError
from temper.events import FINAL
from temper.http import Http, path

_TIMEOUT = httpx.Timeout(10, read=None)  # it may be silent for long


async def log_lines(http: Http, job_id: str, tail: int | None, *, follow: bool) -> AsyncIterator[str]:
    """Its lines without their ends. Raises: NoConnectionError, RefusedError."""
    address = path("jobs", job_id, "logs")
    parameters: dict[str, Any] = {"tail": tail} if tail is not None and not follow else {}
    lines = (await http.call("GET", address, params=parameters)).text.splitlines()
    for line in lines[-tail:] if tail else lines if tail is None else []:
        yield line
    seen, patience = len(lines), http.patience()
    while follow:
        try:
            async with http.stream("GET", address, params={"follow": True}, timeout=_TIMEOUT) as response:
                number = 0
                async for line in http.wire.lines(response):  # from the beginning, at each connection
                    number += 1
                    if number > seen:
                        seen = number
                        patience.renew()
                        yield line
            if (await http.ask("GET", path("jobs", job_id), "state"))["state"] in FINAL:
                return
            await patience(NoConnectionError("the log ended before the job"))
        except TemperError as error:
            await patience(error)
