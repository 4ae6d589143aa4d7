"""python -m worker.sweep: removes stored files that have no row, since their process died in between.

A process of its own beside Celery: the store's client has threads, and Celery forks.
"""

from __future__ import annotations

import logging

from jobs.database import open_database
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


if __name__ == "__main__":
    settings = Settings()
    sweep(Storage(settings.store), Upkeep(open_database(settings.database)), settings.sweep_seconds)
