"""The API of a team's service: any number of processes over one Postgres, Redis and store."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from api.app import create_app
from api.copies import Copies
from api.receive import Transfers
from api.services import Services
from jobs import checks
from jobs.database import open_database
from jobs.idempotency import IdempotencyRepository
from jobs.keys import KeyRepository
from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.signing import SigningKeyRepository
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from jobs.uploads import UploadRepository
from temperd.doctor import Doctor
from temperd.http import serve
from worker.queue import Doorbell
from worker.workplace import sweep_left


def serve_api(host: str, port: int, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    sweep_left(settings.work_dir)  # a container that is started again has its folder, and nobody else there
    app = compose_api(settings)
    serve(app, host, port, settings, log_config=None, access_log=False, timeout_graceful_shutdown=10)


def compose_api(settings: Settings) -> FastAPI:
    """The application over Postgres, Redis and the store."""
    engine, bell, told = open_database(settings.database), Doorbell(settings.broker_url), bool(settings.webhook_url)
    upkeep, storage = Upkeep(engine, webhooks=told), Storage(settings.store)

    doctor = Doctor(settings, engine)
    asked = {"schema": doctor.schema, "broker": doctor.broker, "workers": doctor.workers}
    return create_app(
        Services(
            partial(JobRepository, engine, limits=settings.limits, webhooks=told),
            partial(UploadRepository, engine, limits=settings.limits, unfinished_seconds=settings.unfinished_seconds),
            partial(IdempotencyRepository, engine),
            KeyRepository(engine),
            upkeep,
            storage,
            settings,
            ring=bell.ring,
            checks={**asked, "sandbox": partial(checks.sandbox, upkeep)},
            transfers=Transfers(storage, settings.max_transfers, shared=True),
            copies=Copies(storage, settings.work_dir),
            signing_keys=SigningKeyRepository(engine),
        )
    )
