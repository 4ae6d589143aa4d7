"""What endpoints work with, made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.upkeep import Upkeep


@dataclass(frozen=True)
class Services:
    """Repositories, storage, settings.

    ``ring(queue, job_id)`` wakes a worker, at once and whatever happens; ``checks`` say by name what is wrong, or None.
    """

    repository: JobRepository
    upkeep: Upkeep
    storage: Storage
    settings: Settings
    ring: Callable[[str, str], None]
    checks: Mapping[str, Callable[[], str | None]]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Provided = Annotated[Services, Depends(_services)]
