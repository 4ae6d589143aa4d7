"""The embedded service: API and runner in one process, on SQLite and a local folder."""

from __future__ import annotations

import fcntl
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from api.app import create_app
from api.services import Services
from jobs.database import open_database
from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, new_id
from jobs.settings import QUEUES, Settings
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from temperd.schema import upgrade
from worker.reconciler import Reconciler
from worker.runner import Runner
from worker.supervisor import Supervisor
from worker.sweep import sweep
from worker.workplace import workplace


def serve_embedded(host: str, port: int, data_dir: Path) -> None:
    """Serve until SIGINT or SIGTERM; a running job saves its state first."""
    # whatever the environment says for a team: this is one person's service in one folder
    settings = Settings(data_dir=data_dir, database_url="", store_url="", broker_url="", queues=QUEUES)
    settings.root.mkdir(parents=True, exist_ok=True)
    with _only_server(settings.root), workplace(settings.work_dir, new_id("runner")) as work_dir:
        upgrade(settings.database)
        app, runner = _compose(settings, work_dir)
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # asyncio sets this only on sockets made with an explicit protocol; without it each answer waits 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = f"[{host}]" if ":" in host else host
        # the one line that scripts wait for; the port may have been chosen by the system
        print(f"Temper listens on http://{address}:{listening.getsockname()[1]}", flush=True)  # noqa: T201
        # uvicorn stops gracefully on these and then raises them again: with this, the exit status is 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            runner.stop()  # a second Ctrl-C skips the lifespan's end, but a child must not outlive the lock


def _compose(settings: Settings, work_dir: Path) -> tuple[FastAPI, Runner]:
    engine, storage, told = open_database(settings.database), Storage(settings.store), bool(settings.webhook_url)
    repository, upkeep = JobRepository(engine, webhooks=told), Upkeep(engine, webhooks=told)
    owner, stopping = new_id("runner"), threading.Event()
    supervisor = Supervisor(
        repository,
        LeaseRepository(engine, webhooks=told),
        storage,
        settings,
        owner=owner,
        work_dir=work_dir,
        stopping=stopping,
    )
    runner = Runner(supervisor, settings, stopping)
    reconciler = Reconciler(
        upkeep, settings, name=owner, bell=None, sweep=lambda: sweep(storage, upkeep, settings.sweep_seconds)
    )
    services = Services(
        repository,
        upkeep,
        storage,
        settings,
        ring=lambda _queue, _job_id: runner.ring(),
        checks={"runner": lambda: None if runner.alive else "it does not run: restart the service"},
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        reconciler.start()
        yield
        await run_in_threadpool(runner.stop)  # first: what it saves takes its time
        await run_in_threadpool(reconciler.stop)

    return create_app(services, lifespan), runner


@contextmanager
def _only_server(root: Path) -> Iterator[None]:
    """Two services in one data folder would sweep each other's work; the lock ends with the process."""
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another temperd serves {root}; stop it, or choose another --data-dir")
        yield
