"""Keeps a claim's lease alive beside whatever the attempt is doing, and hears what the user wants meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context

from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import LeaseLostError
from jobs.leases import Claim, LeaseRepository, Orders

_log = logging.getLogger(__name__)
_RENEWALS = 4  # in one lease
_OURS = 0.9  # of it: the child is dead before anybody else may say what became of the job
_LONGEST_PAUSE = 1.0  # between two of them: a user who cancels does not want to wait


class LeaseKeeper:
    """A context manager. It renews until its block ends; ``stop_child`` is called once the child has to die.

    That is when the lease is lost or could not be renewed in time, when the user cancelled, or when the job has run as
    long as it may. Two threads: one asks the database, which may hang for longer than the lease, and one looks only at
    the clock. Each lease is counted from the moment before it was asked for, by the clock of this machine that nobody
    can set.
    """

    def __init__(
        self,
        leases: LeaseRepository,
        claim: Claim,
        lease_seconds: float,
        *,
        asked: float,
        stop_child: Callable[[], None],
        renewed: Callable[[float], None],
    ) -> None:
        """``asked``: the moment before the claim, by time.monotonic; ``renewed`` gets each new deadline by it."""
        self._leases, self._claim, self._lease_seconds = leases, claim, lease_seconds
        self._stop_child, self._renewed = stop_child, renewed
        self._pause = min(_LONGEST_PAUSE, lease_seconds / _RENEWALS)
        self._ended = threading.Event()
        self.deadline = asked + _OURS * lease_seconds
        self._threads = [
            threading.Thread(target=copy_context().run, args=(target,), name=name, daemon=True)
            for target, name in ((self._renew, "lease"), (self._watch, "lease-clock"))
        ]
        self.lost = False
        self.orders = Orders(cancel=False, pause=False)

    def __enter__(self) -> LeaseKeeper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads[1].join()  # the other one may hang in the database, and changes nothing any more

    def _renew(self) -> None:
        while not self._ended.wait(self._pause) and not self.lost:
            asked = time.monotonic()
            try:
                self.orders = self._leases.renew(self._claim, self._lease_seconds)
            except LeaseLostError:
                self._lose()
            except SQLAlchemyError as error:
                _log.warning("the lease of %s could not be renewed: %s", self._claim.job_id, error)
            else:
                self.deadline = asked + _OURS * self._lease_seconds
                self._renewed(self.deadline)
                if self.orders.cancel or self.orders.time_is_up:
                    self._stop_child()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._pause, max(0.0, self.deadline - time.monotonic()))):
            if time.monotonic() >= self.deadline:
                self._lose()
                return

    def _lose(self) -> None:
        if not self._ended.is_set():
            self.lost = True
            self._stop_child()
