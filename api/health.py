"""Is the process alive, can it work, and how does it go?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from api.metrics import CONTENT_TYPE, render
from api.services import Provided
from jobs import checks

router = APIRouter(tags=["health"])
_SECONDS = 3.0
_log = logging.getLogger(__name__)

Check = Callable[[], str | None]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Something is wrong; the checks say what."}})
async def readyz(request: Request, services: Provided) -> JSONResponse:
    """Database, store, and what runs the jobs, each by name; none of them is waited for long."""
    ours: dict[str, Check] = {
        "database": partial(checks.database, services.upkeep),
        "storage": partial(checks.store, services.storage),
    }
    asked = {**ours, **services.checks}
    patience: Patience = request.app.state.patience
    answers = await asyncio.gather(*(patience.ask(name, check) for name, check in asked.items()))
    found = {name: answer or "ok" for name, answer in zip(asked, answers, strict=True)}
    ready = all(value == "ok" for value in found.values())
    return JSONResponse({"ready": ready, "checks": found}, 200 if ready else 503)


class Patience:
    """Asks what may not answer, each question in a thread of its own.

    Those of the other requests may all be waiting for what is away. A question that is still open is not asked again.
    """

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[str | None]] = {}

    async def ask(self, name: str, check: Check) -> str | None:
        """What is wrong, or None."""
        asked = self._asked.get(name)
        if asked is None or asked.done():
            asked = self._asked[name] = self._start(check)
        try:
            return await asyncio.wait_for(asyncio.shield(asked), _SECONDS)
        except TimeoutError:
            return f"it does not answer within {_SECONDS:.0f} s"

    def _start(self, check: Check) -> asyncio.Future[str | None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()

        def run() -> None:
            try:
                answer = check()
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("a check met a fault")
                answer = "the check itself failed; the log has the details"
            with contextlib.suppress(RuntimeError):  # nobody listens any more: the service has stopped
                loop.call_soon_threadsafe(future.set_result, answer)

        threading.Thread(target=run, name="readyz", daemon=True).start()
        return future


@router.get("/metrics", response_class=PlainTextResponse, summary="For Prometheus")
def metrics(services: Provided) -> PlainTextResponse:
    """Jobs by queue and state, waits, lost leases, epochs, GPU memory, HTTP."""
    return PlainTextResponse(render(services.upkeep), media_type=CONTENT_TYPE)
