"""python -m worker.sweep: deletes what has expired, and stored files without a row, whose process died in between.

A process of its own beside Celery: the store's client has threads, and Celery forks.
"""

from __future__ import annotations

import contextlib
import logging

from sqlalchemy import Engine

from jobs.database import open_database
from jobs.errors import JobNotFoundError, WrongStateError
from jobs.repository import JobRepository
from jobs.retention import Retention
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.upkeep import Upkeep

_log = logging.getLogger(__name__)


def sweep(storage: Storage, upkeep: Upkeep, older_than_seconds: float) -> None:
    """Remove what is that old and has no row. A store that another service uses is left alone."""
    upkeep.forget_sent()
    if storage.owner(upkeep.identity()) != upkeep.identity():
        _log.error("the store belongs to another service: nothing is swept; give this one a prefix of its own")
        return
    removed = storage.drop_staged(older_than_seconds)
    for keys in storage.older_than(older_than_seconds):
        orphans = upkeep.orphans(keys)
        storage.delete(orphans)
        removed += len(orphans)
    if removed:
        _log.warning("%d stored files had no row and were removed", removed)


def tidy(engine: Engine, storage: Storage, settings: Settings) -> None:
    """What is over goes, then what nobody refers to."""
    expire(engine, storage, settings)
    sweep(storage, Upkeep(engine), settings.sweep_seconds)


def expire(engine: Engine, storage: Storage, settings: Settings) -> None:
    """Delete the jobs and uploads whose time is over, and their files."""
    retention, freed = Retention(engine), []
    for tenant_id, job_id in retention.expired_jobs(settings.keep_jobs_seconds):
        with contextlib.suppress(JobNotFoundError, WrongStateError):  # its user was faster
            freed += JobRepository(engine, tenant_id).delete(job_id)
    freed += retention.expire_uploads()
    storage.delete([stored.key for stored in freed])


if __name__ == "__main__":
    settings = Settings()
    tidy(open_database(settings.database), Storage(settings.store), settings)
