"""The embedded service: API and runner in one process, on SQLite and a local folder."""

from __future__ import annotations

import fcntl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from api.app import create_app
from api.copies import Copies
from api.receive import Transfers
from api.services import Services
from jobs import checks
from jobs.database import open_database
from jobs.errors import SigningKeyError
from jobs.idempotency import IdempotencyRepository
from jobs.keys import KeyRepository
from jobs.leases import LeaseRepository
from jobs.repository import JobRepository
from jobs.session import new_id
from jobs.settings import QUEUES, Settings
from jobs.signing import Signer, SigningKeyRepository, signer_of
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from jobs.uploads import UploadRepository
from temperd.http import serve
from temperd.keys import has_keys
from temperd.schema import upgrade
from worker.reconciler import Reconciler
from worker.runner import Runner
from worker.sandbox.errors import SandboxError
from worker.sandbox.probe import require
from worker.supervisor import Supervisor
from worker.sweep import tidy
from worker.workplace import workplace


def serve_embedded(host: str, port: int, data_dir: Path) -> None:
    """Serve until SIGINT or SIGTERM; a running job saves its state first.

    Whoever reaches it can use it, unless it ever had a key: the caller has made sure that it has, or is on loopback.
    """
    # whatever the environment says for a team: this is one person's service in one folder
    settings = Settings(data_dir=data_dir, database_url="", store_url="", broker_url="", queues=QUEUES)
    settings.root.mkdir(parents=True, exist_ok=True)
    with _only_server(settings.root), workplace(settings.work_dir, new_id("runner")) as work_dir:
        upgrade(settings.database)
        try:
            sandbox, signer = require(settings), signer_of(settings)
        except SandboxError as error:
            sys.exit(str(error))
        except SigningKeyError as error:
            sys.exit(f"{error}: {error.hint}")
        app, runner = _compose(settings, work_dir, sandbox, signer)
        try:
            serve(app, host, port, settings, log_level="warning", timeout_graceful_shutdown=5)
        finally:
            runner.stop()  # a second Ctrl-C skips the lifespan's end, but a child must not outlive the lock


def _compose(settings: Settings, work_dir: Path, sandbox: str, signer: Signer) -> tuple[FastAPI, Runner]:
    engine, storage, told = open_database(settings.database), Storage(settings.store), bool(settings.webhook_url)
    upkeep = Upkeep(engine, webhooks=told)
    signing_keys = SigningKeyRepository(engine)
    owner, stopping = new_id("runner"), threading.Event()
    supervisor = Supervisor(
        LeaseRepository(engine, webhooks=told),
        storage,
        settings,
        signer,
        signing_keys,
        owner=owner,
        work_dir=work_dir,
        stopping=stopping,
    )
    runner = Runner(supervisor, settings, stopping)
    reconciler = Reconciler(upkeep, settings, name=owner, bell=None, sweep=lambda: tidy(engine, storage, settings))
    services = Services(
        partial(JobRepository, engine, limits=settings.limits, webhooks=told),
        partial(UploadRepository, engine, limits=settings.limits, unfinished_seconds=settings.unfinished_seconds),
        partial(IdempotencyRepository, engine),
        KeyRepository(engine) if has_keys(settings) else None,
        upkeep,
        storage,
        settings,
        ring=lambda _queue, _job_id: runner.ring(),
        checks={
            "runner": lambda: None if runner.alive else "it does not run: restart the service",
            "sandbox": lambda: checks.Fine(sandbox if sandbox == checks.OFF else f"ok ({sandbox})"),
        },
        transfers=Transfers(storage, settings.max_transfers, shared=has_keys(settings)),
        copies=Copies(storage, settings.work_dir),
        signing_keys=signing_keys,
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
