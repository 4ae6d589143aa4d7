"""The API of a team's service: any number of processes over one Postgres, Redis and store."""

from __future__ import annotations

import signal
import socket

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.services import Services
from jobs.database import open_database
from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from temperd.doctor import Doctor
from worker.queue import Doorbell
from worker.workplace import sweep_left


def serve_api(host: str, port: int, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    sweep_left(settings.work_dir)  # a container that is started again has its folder, and nobody else there
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # see embedded
    print(f"Temper listens on http://{host}:{listening.getsockname()[1]}", flush=True)  # noqa: T201
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(compose_api(settings), log_config=None, access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listening])


def compose_api(settings: Settings) -> FastAPI:
    """The application over Postgres, Redis and the store."""
    engine, bell, told = open_database(settings.database), Doorbell(settings.broker_url), bool(settings.webhook_url)
    upkeep = Upkeep(engine, webhooks=told)

    doctor = Doctor(settings, engine)
    return create_app(
        Services(
            JobRepository(engine, webhooks=told),
            upkeep,
            Storage(settings.store),
            settings,
            ring=bell.ring,
            checks={"schema": doctor.schema, "broker": doctor.broker, "workers": doctor.workers},
        )
    )
