"""Is the process alive, and can it work?"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.services import Provided

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Something is wrong; the checks say what."}})
def readyz(services: Provided) -> JSONResponse:
    """Database, storage and runner, each by name."""
    checks = {"database": "ok", "runner": "ok" if services.worker_alive() else "not running"}
    try:
        services.repository.page(state=None, defense=None, limit=1, after=None)
    except SQLAlchemyError as error:
        checks["database"] = type(error).__name__
    ready = all(value == "ok" for value in checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)
