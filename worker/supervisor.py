"""Claims jobs, one at a time, and sees each through."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from structlog.contextvars import bound_contextvars

from jobs.errors import LeaseLostError
from jobs.leases import LeaseRepository
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository
from jobs.storage import Storage
from worker.attempt import Attempt
from worker.flag import Flag

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs one job at a time; ``stopping`` set means: save, give the job back, return."""

    def __init__(
        self,
        leases: LeaseRepository,
        storage: Storage,
        settings: Settings,
        signer: Signer,
        signing_keys: SigningKeyRepository,
        *,
        owner: str,
        work_dir: Path,
        stopping: Flag,
    ) -> None:
        self._leases, self._storage, self._settings = leases, storage, settings
        self._signer, self._signing_keys = signer, signing_keys
        self._owner, self._work_dir = owner, work_dir
        self._stopping = stopping

    def run_next(self) -> bool:
        """Claim and run one job; False if none was waiting."""
        asked = time.monotonic()
        claim = self._leases.claim(self._owner, self._settings.lease_seconds, self._settings.queues)
        if claim is None:
            return False
        workdir = self._work_dir / f"{claim.job_id}-{claim.attempt}"
        with bound_contextvars(job=claim.job_id, attempt=claim.attempt):
            try:
                services = self._leases, self._storage, self._settings, self._stopping
                Attempt(claim, asked, workdir, *services, self._signer, self._signing_keys).run()
            except LeaseLostError as error:
                _log.warning("%s; its child was killed", error)
            finally:
                shutil.rmtree(workdir, ignore_errors=True)
        return True
