"""What endpoints work with, made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.storage import Storage


@dataclass(frozen=True)
class Services:
    """Repository, storage, settings; ``ring`` wakes a worker, ``worker_alive`` says whether one listens."""

    repository: JobRepository
    storage: Storage
    settings: Settings
    ring: Callable[[], None]
    worker_alive: Callable[[], bool]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Provided = Annotated[Services, Depends(_services)]
