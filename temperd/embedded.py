"""The embedded service: API and runner in one process, on SQLite and a local folder."""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from api.app import create_app
from api.services import Services
from jobs.database import open_database
from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.storage import Storage
from temperd.schema import upgrade
from worker.runner import Runner
from worker.supervisor import Supervisor


def serve_embedded(host: str, port: int, data_dir: Path) -> None:
    """Serve until SIGINT or SIGTERM; a running job saves its state first."""
    settings = Settings(data_dir=data_dir)
    settings.root.mkdir(parents=True, exist_ok=True)
    with _only_server(settings.root):
        upgrade(settings.database_url)
        app, runner = _compose(settings)
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


def _compose(settings: Settings) -> tuple[FastAPI, Runner]:
    repository = JobRepository(open_database(settings.database_url))
    storage = Storage(settings.store_dir)
    # work folders of a killed service: what counts is in the store
    shutil.rmtree(settings.work_dir, ignore_errors=True)
    runner = Runner(Supervisor(repository, storage, settings), settings)
    services = Services(repository, storage, settings, ring=runner.ring, worker_alive=lambda: runner.alive)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        await run_in_threadpool(runner.stop)

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
