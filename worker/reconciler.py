"""Looks after what crashes leave behind: one process at a time acts for all, whoever holds the duty's lease."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from jobs.settings import Settings
from jobs.upkeep import Upkeep
from worker.rounds import Rounds
from worker.webhooks import Webhooks

_log = logging.getLogger(__name__)
_ROUNDS = 3  # in one lease: what is lost goes on within two
_WEBHOOK_PAUSE = 1.0
_STOP_SECONDS = 2.0
_SWEEP_PAUSE = 600.0
_SWEEP_SECONDS = 900.0


class Bell(Protocol):
    """How waiting jobs are made known; see worker.queue.Doorbell."""

    def pending(self, queue_name: str) -> int:
        """Rings that nobody has heard yet."""
        ...

    def ring_now(self, queue_name: str, job_id: str) -> None:
        """Ring."""
        ...


class Reconciler:
    """Takes back expired leases and rings for what waits unheard; beside that, sends webhooks and has files swept.

    Each in a thread of its own: a receiver of webhooks that hangs, or a long sweep, delays no lost job.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        settings: Settings,
        *,
        name: str,
        bell: Bell | None,
        sweep: Callable[[], None],
        serves: Sequence[str] | None = None,
        sandbox: str = "",
    ) -> None:
        """``serves``: queues of the worker that this runs in, none in a process of its own; it says that it is there.

        ``sandbox``: what holds that worker's jobs in. Where jobs are polled, ``serves`` and ``bell`` are None.
        """
        self._upkeep, self._settings, self._sweep = upkeep, settings, sweep
        self._name, self._bell, self._serves, self._sandbox = name, bell, serves, sandbox
        self._pause = settings.lease_seconds / _ROUNDS
        sweep_pause = min(_SWEEP_PAUSE, settings.sweep_seconds)
        self._threads = [
            Rounds("reconciling", self._pause, self.round),
            Rounds("sweeping", sweep_pause, self._sweep_all),
        ]
        if settings.webhook_url:
            webhooks = Webhooks(upkeep, settings.webhook_url, settings.webhook_secret.get_secret_value(), name)
            self._threads.append(Rounds("sending webhooks", _WEBHOOK_PAUSE, webhooks.deliver))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End within seconds, and say so; the duties are free when their leases end."""
        for rounds in self._threads:
            rounds.end()
        farewell = threading.Thread(target=self._leave, name="leaving", daemon=True)
        farewell.start()
        deadline = time.monotonic() + _STOP_SECONDS
        waits: list[Rounds | threading.Thread] = [*self._threads, farewell]
        for thread in waits:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _leave(self) -> None:
        if self._serves is not None:
            with contextlib.suppress(SQLAlchemyError):  # then it is forgotten in a minute
                self._upkeep.gone(self._name)

    def round(self) -> None:
        """One round, if nobody else has the duty."""
        if self._serves is not None:
            self._upkeep.seen(self._name, self._serves, self._sandbox)
        if not self._upkeep.take_duty("reconcile", self._name, 2 * self._pause):
            return
        for job_id, became in self._upkeep.take_back():
            _log.warning("the worker of %s was silent: the job is %s", job_id, became)
        if self._bell:
            self._ring(self._bell)

    def _ring(self, bell: Bell) -> None:
        """As many unheard rings as there are waiting jobs: a flushed Redis forgets them, a busy worker may hold one."""
        for queue_name, jobs in self._upkeep.waiting().items():
            for job_id in jobs[: max(0, len(jobs) - bell.pending(queue_name))]:
                bell.ring_now(queue_name, job_id)

    def _sweep_all(self) -> None:
        if self._upkeep.take_duty("sweep", self._name, _SWEEP_SECONDS):
            self._upkeep.forget_requests()
            self._sweep()
