"""Keeps a claim's lease alive beside whatever the attempt is doing, be it a long copy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import LeaseLostError
from jobs.repository import Claim, JobRepository

_log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews every third of the lease; calls ``on_loss`` once it is lost or could not be renewed in time.

    A context manager: renewing ends with the block.
    """

    def __init__(
        self, repository: JobRepository, claim: Claim, lease_seconds: float, on_loss: Callable[[], None]
    ) -> None:
        self._repository, self._claim, self._lease_seconds = repository, claim, lease_seconds
        self._on_loss = on_loss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost = False

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        deadline = time.monotonic() + self._lease_seconds
        while not self._ended.wait(self._lease_seconds / 3):
            asked = time.monotonic()
            try:
                self._repository.renew(self._claim, self._lease_seconds)
                deadline = asked + self._lease_seconds
            except LeaseLostError:
                deadline = 0.0
            except SQLAlchemyError:
                _log.warning("the lease of %s could not be renewed", self._claim.job_id, exc_info=True)
            if time.monotonic() > deadline:
                if not self._ended.is_set():
                    self.lost = True
                    self._on_loss()
                return
