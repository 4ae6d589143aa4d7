"""The FastAPI application over given services."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from api import catalog, checkpoints, errors, events, health, jobs, logs, metrics, openapi
from api.nul import NoNul
from api.services import Services
from core import __version__

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(services: Services, lifespan: Lifespan | None = None) -> FastAPI:
    """The application; ``lifespan`` starts and stops what the services need."""
    app = FastAPI(
        title="Temper",
        summary="Hardens image classifiers, and says honestly how robust they are now.",
        version=__version__,
        lifespan=lifespan,
        max_body_size=services.settings.max_upload_bytes,
    )
    app.state.services, app.state.patience = services, health.Patience()
    errors.install(app)
    for module in (jobs, events, logs, checkpoints, catalog, health):
        app.include_router(module.router)
    openapi.install(app)
    app.add_middleware(NoNul)
    metrics.install(app)
    return app
