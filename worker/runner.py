"""The embedded runner: a thread that runs waiting jobs one after the other."""

from __future__ import annotations

import logging
import threading

from jobs.settings import Settings
from worker.supervisor import Supervisor

_log = logging.getLogger(__name__)


class Runner:
    """Polls for jobs and is woken by ``ring``; its thread lasts as long as the service, so its children may."""

    def __init__(self, supervisor: Supervisor, settings: Settings, stopping: threading.Event) -> None:
        """``stopping``: the supervisor's own."""
        self._supervisor, self._poll_seconds, self._stopping = supervisor, settings.poll_seconds, stopping
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runner")

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def ring(self) -> None:
        """There may be a new job."""
        self._bell.set()

    def stop(self) -> None:
        """Let the running job save its state and give it back, then end; again or unstarted, nothing."""
        self._stopping.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether jobs are being run."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                busy = self._supervisor.run_next()
            except Exception:  # noqa: BLE001 - the boundary of the thread
                # one job's trouble (a full disk, a locked database) must not end the runner: the job's lease
                # runs out, and the next claim goes on or counts it as stalled
                _log.exception("the attempt ended with an error")
                busy = False
            if not busy:
                self._bell.wait(self._poll_seconds)
