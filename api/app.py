"""The FastAPI application over given services."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from api import (
    catalog,
    checkpoints,
    docs,
    errors,
    events,
    health,
    jobs,
    login,
    logs,
    metrics,
    openapi,
    pages_compare,
    pages_jobs,
    pages_keys,
    pages_live,
    pages_new,
    pages_report,
    pages_unknown,
    signing,
    static,
    uploads,
)
from api.credentials import Credentials
from api.deadlines import LeastPace
from api.door import Door
from api.front import Front
from api.nul import NoNul
from api.services import Services
from api.tus import Tus
from core import __version__

_PAGES = (pages_jobs, pages_new, pages_compare, pages_keys, pages_live, pages_report)
# pages first: they share addresses with the API, and pass on whoever asks for no page
_MODULES = (
    *_PAGES,
    jobs,
    uploads,
    events,
    logs,
    checkpoints,
    catalog,
    signing,
    health,
    login,
    docs,
    static,
    pages_unknown,
)
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_MAX_BODY_BYTES = 2 << 20  # of what is no upload and has no limit of its own


def endpoints(lifespan: Lifespan | None = None) -> FastAPI:
    """All routes and their OpenAPI document, over no services yet."""
    app = FastAPI(
        title="Temper",
        summary="Hardens image classifiers, and says honestly how robust they are now.",
        version=__version__,
        lifespan=lifespan,
        max_body_size=_MAX_BODY_BYTES,
        openapi_url=None,  # these have routes of their own, without a CDN
        docs_url=None,
        redoc_url=None,
    )
    app.state.routes = [route for module in _MODULES for route in module.router.routes]
    for module in _MODULES:
        app.include_router(module.router)
    openapi.install(app)
    return app


def create_app(services: Services, lifespan: Lifespan | None = None) -> FastAPI:
    """The application; ``lifespan`` starts and stops what the services need."""
    app, settings = endpoints(lifespan), services.settings
    credentials = Credentials(services.keys, settings.wrong_keys_per_minute) if services.keys else None
    app.state.services, app.state.patience, app.state.credentials = services, health.Patience(), credentials
    errors.install(app)
    # the last one added is the outermost
    app.add_middleware(Door, credentials=credentials, limits=settings.limits)
    app.add_middleware(NoNul)
    app.add_middleware(LeastPace, rate=settings.pace_bytes, window=settings.pace_seconds)
    app.add_middleware(Front)
    app.add_middleware(Tus, path=uploads.router.prefix)
    metrics.install(app)
    return app
