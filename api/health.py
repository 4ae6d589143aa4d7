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

from api.caller import ADMIN
from api.front import where
from api.metrics import CONTENT_TYPE, render
from api.services import Provided
from api.shapes import Ready
from jobs import checks

router = APIRouter(tags=["health"])
_SECONDS = 3.0
_FAILS = "it fails; temperd doctor says why"
_log = logging.getLogger(__name__)

Check = Callable[[], str | None]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Something is wrong; the checks say what."}},
)
async def readyz(request: Request, services: Provided) -> JSONResponse:
    """Database, store, and what runs the jobs, each by name; none of them is waited for long."""
    ours: dict[str, Check] = {
        "database": partial(checks.database, services.upkeep),
        "storage": partial(checks.store, services.storage),
    }
    asked = {**ours, **services.checks}
    patience: Patience = request.app.state.patience
    answers = await asyncio.gather(*(patience.ask(name, check) for name, check in asked.items()))
    # a stranger need not know why; who may be one is not looked up, since that asks the database
    known = services.keys is None
    shown = answers if known else [_FAILS if checks.is_wrong(answer) else answer for answer in answers]
    found = {name: answer or "ok" for name, answer in zip(asked, shown, strict=True)}
    ready = not any(map(checks.is_wrong, answers))
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
            except Exception as error:  # noqa: BLE001 - the boundary of the thread
                _log.error("a check met a fault: %s", where(error))
                answer = "the check itself failed; the log has the details"
            with contextlib.suppress(RuntimeError):  # nobody listens any more: the service has stopped
                loop.call_soon_threadsafe(future.set_result, answer)

        threading.Thread(target=run, name="readyz", daemon=True).start()
        return future


@router.get("/metrics", response_class=PlainTextResponse, summary="For Prometheus", dependencies=[ADMIN])
def metrics(services: Provided) -> PlainTextResponse:
    """Jobs by queue and state, waits, lost leases, epochs, GPU memory, HTTP."""
    return PlainTextResponse(render(services.upkeep), media_type=CONTENT_TYPE)
