"""The Celery worker: a parent that listens and reconciles, and one forked child that supervises jobs.

Neither loads torch: the supervisor starts the engine as a process of its own (CUDA breaks after a fork). The kernel
ends the forked child with its parent, and the engine with the forked child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown, worker_ready, worker_shutting_down

from jobs.database import open_database
from jobs.leases import LeaseRepository
from jobs.session import new_id
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository, signer_of
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from worker.flag import Flag, SharedFlag
from worker.hearing import Hearing
from worker.leash import die_with_parent
from worker.queue import TASK, Doorbell, make_celery
from worker.reconciler import Reconciler
from worker.rounds import Rounds
from worker.sandbox.probe import require
from worker.supervisor import Supervisor
from worker.workplace import workplace

_SWEEP_SECONDS = 600
_GOODBYE_SECONDS = 8.0  # after the time to drain: for telling what became of the job, and for Celery
_DEAF_LEASES = 2
_log = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT: then the running job saves its state and is given back. Returns the exit status.

    Raises: SandboxError; SigningKeyError.
    """
    sandbox, signer = require(settings), signer_of(settings)
    name = f"{socket.gethostname()}-{os.getpid()}"
    # shared with the child that Celery forks: only the parent hears of a shutdown
    stopping, broken, busy = SharedFlag(), SharedFlag(), SharedFlag()
    celery = make_celery(settings.broker_url)
    parent = os.getpid()
    supervisor: Supervisor | None = None
    left = contextlib.ExitStack()  # what the forked child leaves when it ends

    def ring(job_id: str) -> None:
        """A job waits; which one is this worker's, the database says."""
        if stopping.is_set() or supervisor is None:
            return
        # Celery's own handler, set after ``in_child``, would end this process in the middle of the job
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        _log.info("rung for %s", job_id)
        busy.set()
        try:
            supervisor.run_next()
        finally:
            busy.clear()

    celery.task(name=TASK, ignore_result=True)(ring)

    def in_child(**_: Any) -> None:
        nonlocal supervisor
        try:
            die_with_parent(parent)
            busy.clear()  # of a child that was killed
            place = left.enter_context(workplace(settings.work_dir, new_id("worker")))
            supervisor = _supervisor(settings, signer, name, place, stopping)
        except Exception:  # noqa: BLE001 - Celery would go on without, and this worker would swallow every ring
            _log.exception("the worker cannot work and ends")
            broken.set()
            os.kill(parent, signal.SIGTERM)

    def shutting_down(**_: Any) -> None:
        stopping.set()
        threading.Thread(target=_end_in_time, args=(settings.drain_seconds,), name="end-in-time", daemon=True).start()

    upkeep, bell = upkeep_of(settings), Doorbell(settings.broker_url)
    reconciler = reconciler_of(settings, name, upkeep, bell, serves=settings.queues, sandbox=sandbox)
    hearing = _hearing_of(settings, upkeep, bell, busy, stopping)
    worker_process_init.connect(in_child, weak=False)
    worker_process_shutdown.connect(lambda **_: left.close(), weak=False)
    for each in (reconciler, hearing):
        worker_ready.connect(lambda _each=each, **_: _each.start(), weak=False)
    worker_shutting_down.connect(shutting_down, weak=False)
    queues = ",".join(settings.queues)
    worker = celery.Worker(
        queues=queues, hostname=f"temper@{name}", pool="prefork", concurrency=1, loglevel="WARNING",
        without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True,
    )  # fmt: skip
    worker.start()
    hearing.end()
    reconciler.stop()
    return 1 if broken.is_set() else int(worker.exitcode or 0)


def _end_in_time(drain_seconds: float) -> None:
    """Celery can hang over a broken connection to Redis; the kernel then ends its children with this process."""
    time.sleep(drain_seconds + _GOODBYE_SECONDS)
    _log.error("Celery did not end in time; a job that it still held is taken back when its lease ends")
    os._exit(0)


def _hearing_of(settings: Settings, upkeep: Upkeep, bell: Doorbell, busy: Flag, stopping: Flag) -> Rounds:
    def begin_again() -> None:
        if not stopping.is_set():
            _log.error("Celery no longer hears Redis: this worker begins again")
            # the same process, for whoever watches it; the kernel ends its idle child with the thread that forked it
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted

    seconds = _DEAF_LEASES * settings.lease_seconds
    hearing = Hearing(upkeep, bell, queues=settings.queues, busy=busy, seconds=seconds, deaf=begin_again)
    return Rounds("hearing", settings.lease_seconds / 2, hearing.round)


def _supervisor(settings: Settings, signer: Signer, name: str, place: Any, stopping: Any) -> Supervisor:
    engine = open_database(settings.database)
    told = bool(settings.webhook_url)
    return Supervisor(
        LeaseRepository(engine, webhooks=told),
        Storage(settings.store),
        settings,
        signer,
        SigningKeyRepository(engine),
        owner=name,
        work_dir=place,
        stopping=stopping,
    )


def upkeep_of(settings: Settings) -> Upkeep:
    """What reconcilers do, on the database of the settings."""
    return Upkeep(open_database(settings.database), webhooks=bool(settings.webhook_url))


def reconciler_of(
    settings: Settings, name: str, upkeep: Upkeep, bell: Doorbell, *, serves: Sequence[str], sandbox: str = ""
) -> Reconciler:
    """The reconciler of a worker, or one alone."""
    return Reconciler(upkeep, settings, name=name, bell=bell, sweep=_sweep, serves=serves, sandbox=sandbox)


def _sweep() -> None:
    python = [sys.executable, "-P", "-m"]
    command = [*python, "worker.leash", str(os.getpid()), "-", "-", *python, "worker.sweep"]
    subprocess.run(command, timeout=_SWEEP_SECONDS, check=False)
