"""What runs the jobs of a team's service. Never loads torch."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from jobs.errors import SigningKeyError
from jobs.settings import Settings
from worker.queue import Doorbell
from worker.sandbox.errors import SandboxError
from worker.service import reconciler_of, serve, upkeep_of


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    try:
        status = serve(settings)
    except SandboxError as error:
        sys.exit(str(error))
    except SigningKeyError as error:
        sys.exit(f"{error}: {error.hint}")
    sys.exit(status)


def run_reconciler(settings: Settings) -> None:
    """Reconcile until SIGTERM or SIGINT, beside workers that do the same while this one is away."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    name = f"{socket.gethostname()}-{os.getpid()}"
    reconciler = reconciler_of(settings, name, upkeep_of(settings), Doorbell(settings.broker_url), serves=())
    reconciler.start()
    ended.wait()
    reconciler.stop()
